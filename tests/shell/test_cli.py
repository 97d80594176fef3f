"""The command line on a tiny simulated log, and what it says when something is wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autorec import arguments, cli
from autorec.errors import ConfigError
from autorec.schema import Field, Kind, Role, Schema

Call = Callable[..., str]
VERBS = {"fit", "predict", "rank", "evaluate", "leaderboard", "check", "deploy", "dashboard"}
VERBS |= {"doctor", "datasets", "demo"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("600", 600.0), ("90s", 90.0), ("10m", 600.0), ("1h", 3600.0), ("1.5 h", 5400.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert arguments.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3", "10 days", "m", "1e3", "ten"])
def test_a_duration_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"number above 0 with s, m or h behind it, but got"):
        arguments.duration(text)


def test_the_verbs_are_these(call: Call) -> None:
    told = call("--help")
    assert [verb for verb in VERBS if not re.search(rf"^\W*{verb}\s", told, re.MULTILINE)] == []
    found = {getattr(command.callback, "__name__", "") for command in cli.app.registered_commands}
    assert found == VERBS


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['autorec', '--help']\n"
        "from autorec import cli\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'optuna', 'mlflow', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_leaderboard(call: Call, run: Path) -> None:
    told = call("leaderboard", run)
    assert max(len(line) for line in told.splitlines()) <= 100
    lines = [line.split() for line in told.splitlines() if re.match(r" \d ", line)]
    assert [line[0] for line in lines] == [str(i + 1) for i in range(len(lines))]
    scores = [float(next(w for w in line if re.fullmatch(r"0\.\d{4}", w))) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert "popularity" in told and "linear" in told


def test_rank(call: Call, run: Path, home: Path) -> None:
    ids = [line.split(",")[0] for line in (home / "clicks.csv").read_text().splitlines()[1:3]]
    target = home / "rank.csv"
    call("rank", run, "--user", ids[0], "-u", ids[1], "-k", "3", "--seen", "-o", target)
    lines = target.read_text().splitlines()
    assert lines[0] == "user_id,item_id,score,rank"
    assert len(lines) == 1 + 2 * 3
    assert call("rank", run, "--user", ids[0], "-k", "2").count("\n") >= 4
    told = call("rank", run, "--user", "ann", code=2)
    assert "'user' are int64, but got 'ann'" in told


def test_predict_and_evaluate(call: Call, run: Path, home: Path) -> None:
    told = call("predict", run, home / "clicks.csv")
    lines = told.strip().splitlines()
    assert lines[0] == "user,item,probability" and len(lines) == 1501
    target = home / "scores.parquet"
    call("predict", run, home / "clicks.csv", "--output", target)
    import pandas as pd

    printed = [float(line.split(",")[2]) for line in lines[1:]]
    assert pd.read_parquet(target)["probability"].tolist() == pytest.approx(printed, abs=1e-12)
    assert all(0.0 < score < 1.0 for score in printed)
    told = call("evaluate", run, home / "clicks.csv")
    assert re.search(r"auc +0\.\d{4} +95 % 0\.\d{4} to 0\.\d{4}", told)
    told = call("predict", run, home / "clicks.csv", "-o", home / "x.json", code=2)
    assert "--output ends in .csv or .parquet" in told


def test_check_finds_a_leak(call: Call, home: Path) -> None:
    path = home / "clicks.csv"
    assert "0 errors" in call("check", path, "--label", "click", "--timestamp", "ts")
    lines = path.read_text().splitlines()
    leaky = [f"{line},{'copy' if i == 0 else line.split(',')[-1]}" for i, line in enumerate(lines)]
    (home / "leaky.csv").write_text("\n".join(leaky))
    told = call("check", home / "leaky.csv", "--label", "click", "--timestamp", "ts", code=1)
    assert "copy" in told and "(equals_label)" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "{}", "--label", "cluck"], "did you mean 'click'"),
        (["fit", "{}", "--label", "click", "--time-limit", "soon"], "but got 'soon'"),
        (["fit", "{}", "--label", "click", "--workers", "0"], "--workers is 'auto' or a number"),
        (["fit", "{}", "--type", "user"], "--type takes COLUMN=VALUE, but got 'user'"),
        (["fit", "nowhere.csv", "--label", "click"], "'nowhere.csv' does not exist"),
        (["fit", "dataset:frape"], "frappe"),
        (["leaderboard", "nowhere"], "nowhere has neither"),
        (["dashboard", "nowhere"], "run.json does not exist"),
        (["rank", "nowhere", "--user", "1"], "nowhere has neither"),
    ],
)
def test_an_error_is_one_message(
    call: Call, words: Sequence[str], message: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    told = call(*[word.format(home / "clicks.csv") for word in words], code=2)
    assert told.startswith("error: ") and "Traceback" not in told
    assert message in " ".join(told.split())
    assert not (home / "autorec-runs").exists() or not any((home / "autorec-runs").iterdir())


def test_debug_shows_where() -> None:
    done = CliRunner().invoke(cli.app, ["--debug", "leaderboard", "nowhere"])
    assert type(done.exception).__name__ == "RankerError"


def test_debug_may_stand_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(cli, "app", lambda words, prog_name: seen.append(words))
    monkeypatch.setattr(sys, "argv", ["autorec", "rank", "run", "--debug"])
    cli.main()
    assert seen == [["--debug", "rank", "run"]]


def test_ids_are_read_in_the_type_of_their_column() -> None:
    def schema(dtype: str) -> Schema:
        return Schema((Field("u", Kind.ID, Role.USER, dtype),))

    assert arguments.as_id(schema("int64"), "42") == 42
    assert arguments.as_id(schema("uint32"), "42") == 42
    assert arguments.as_id(schema("double"), "42") == 42.0
    assert arguments.as_id(schema("string"), "42") == "42"
    assert arguments.as_id(schema("large_string"), "042") == "042"


def test_a_data_set_brings_its_columns_and_keeps_its_test_rows(data_root: Path) -> None:
    given = arguments.training("dataset:frappe", None, {"label": None}, "auto", {"city": "id"})
    assert given.columns["task"] == "ctr" and given.columns["label"] == "label"
    assert given.columns["feature_types"]["city"] == "id"
    test = arguments.labelled("dataset:frappe")
    assert (given.train.num_rows, given.valid.num_rows, test.num_rows) == (202027, 57722, 28860)
    given = arguments.training("dataset:movielens-100k", None, {}, "auto")
    test = arguments.labelled("dataset:movielens-100k")
    assert given.valid is None and given.train.num_rows + test.num_rows == 100_000


def test_ctrl_c_before_anything_is_saved_ends_with_130(tmp_path: Path) -> None:
    code = (
        "import time\nfrom autorec import cli, arguments\n"
        "def slow(*a, **k):\n    print('now', flush=True)\n    time.sleep(30)\n"
        "arguments.training = slow\n"
        "import sys; sys.argv = ['autorec', 'fit', 'x.csv']\ncli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"now\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert told.decode().strip() == "interrupted; nothing was saved"


def test_deploy_prints_a_command_that_serves(call: Call, run: Path) -> None:
    told = call("deploy", run, "front-test", "--alias", "latest", code=2)
    assert "an alias consists of" in told
    told = call("deploy", run, "front-test", "--alias", "candidate", "--port", "5003")
    assert "registered front-test version 1 as models:/front-test@candidate" in told
    command = next(line for line in told.splitlines() if line.startswith("  env "))
    assert "models serve --model-uri models:/front-test@candidate" in command
    assert "--host 127.0.0.1 --port 5003" in command and f"sqlite:///{run}/mlflow.db" in command


def test_a_fit_leaves_a_run_and_says_what_is_next(fitted: str, run: Path) -> None:
    assert "metric auc" in fitted and "popularity" in fitted
    assert f"report {run / 'report.html'}" in fitted and f"autorec rank {run} --user ID" in fitted
    assert json.loads((run / "run.json").read_text())["winner"] is not None
