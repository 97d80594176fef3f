"""`mlflow models serve` answers over HTTP with what the ranker says in process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from autorec.tracking.registry import register, signature
from autorec.tracking.store import Store, serve_command

SECONDS = 60.0
FULL: dict[str, Any] = {
    **{"user": 2**53 + 1, "item": "a", "price": 1.5, "age": 30, "mobile": True},
    **{"tags": ["x", "y"], "seen": [1, 2]},
}


def free_port() -> int:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        pytest.skip(f"no port of 127.0.0.1 can be bound here: {error}")


@pytest.fixture(scope="module")
def server(
    store: Store, ranker_folder: Path, fake: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of a running server of the fake ranker."""
    port, folder = free_port(), tmp_path_factory.mktemp("server")
    made = signature(fake.SCHEMA, "ctr")
    info = register(ranker_folder, "over http", store=store, signature=made)
    command = serve_command(info.uri, store, port)
    found = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": found, "PATH": os.defpath}
    with open(folder / "log", "w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
        try:
            deadline = time.monotonic() + SECONDS
            while not answers(f"http://127.0.0.1:{port}/ping"):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    pytest.fail(f"the server did not start: {log.read()[-3000:]}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # its own session: the command and uvicorn
            process.wait(10)
    assert [path.name for path in folder.iterdir()] == ["log"], "MLflow wrote beside the store"


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def post(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body, allow_nan=False).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response, parse_constant=refuse)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_served_scores_are_the_scores_in_process(
    server: str, ranker_folder: Path, fake: ModuleType
) -> None:
    ranker = fake.FakeRanker.load(ranker_folder)
    requests: list[list[dict[str, Any]]] = [
        [FULL],
        [FULL | {name: None} for name in FULL],
        [FULL | {"user": 1.0, "age": 30.0, "price": 2}],
        [FULL | {"tags": [], "seen": []}, FULL | {"tags": ["a", None], "seen": [1, None]}],
        [{"user": 1}],
        [{"item": "a"}, {"tags": ["x"], "not a column": 1}],
    ]
    for rows in requests:
        expected = [{"score": score} for score in ranker.score(pd.DataFrame(rows))]
        status, body = post(server, {"dataframe_records": rows})
        assert (status, body) == (200, {"predictions": expected}), rows
        columns = sorted({name for row in rows for name in row})
        split = {"columns": columns, "data": [[row.get(c) for c in columns] for row in rows]}
        status, body = post(server, {"dataframe_split": split})
        assert (status, body) == (200, {"predictions": expected}), rows


def test_the_server_ranks_and_refuses(server: str) -> None:
    body: dict[str, Any] = {"dataframe_records": [{"user": 7}], "params": {"mode": "rank", "k": 2}}
    assert post(server, body) == (
        200,
        {
            "predictions": [
                {"user_id": 7, "item_id": "i0", "score": 1.0, "rank": 1},
                {"user_id": 7, "item_id": "i1", "score": 0.5, "rank": 2},
            ]
        },
    )
    body["dataframe_records"] = [{"user": None}]
    status, answer = post(server, body)
    assert (status, [row["user_id"] for row in answer["predictions"]]) == (200, [None, None])
    status, answer = post(server, {"dataframe_records": [FULL | {"item": "forbidden"}]})
    assert status == 400
    assert "the item 'forbidden' is not scored" in answer["message"]
    assert "Traceback" not in json.dumps(answer)
