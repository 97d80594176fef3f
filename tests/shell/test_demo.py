"""The demo, without its server: the board ends with what no model can pass."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autorec import arguments, demo
from autorec.errors import ConfigError, RankerError


def test_the_demo_from_table_to_registry(tmp_path: Path, call: Callable[..., str]) -> None:
    words = ["demo", "--path", tmp_path / "d", "--time-limit", "12s", "--rows", "1500"]
    told = call(*words, "--no-serve")
    lines = [line for line in told.splitlines() if line.strip()]
    board = [line for line in lines if "popularity" in line or "Bayes ceiling" in line]
    assert "Bayes ceiling" in board[-1]
    assert "registered demo-ranker version 1 as models:/demo-ranker@champion" in told
    assert "of what can be known about a click" in told
    assert (tmp_path / "d" / "run" / "report.html").is_file()
    assert (tmp_path / "d" / "clicks.parquet").is_file()


def test_a_second_demo_keeps_the_first(tmp_path: Path) -> None:
    assert arguments.numbered(tmp_path, "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert arguments.numbered(tmp_path, "run") == tmp_path / "run-3"


class _Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kind = self.headers["Content-Type"]
        self.send_response(200 if self.path == "/ok" else 400)
        self.end_headers()
        self.wfile.write(json.dumps({"got": json.loads(body), "kind": kind}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_post_sends_and_reads_json() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        answer = demo.post(url + "/ok", {"a": [1]})
        assert answer == {"got": {"a": [1]}, "kind": "application/json"}
        with pytest.raises(RankerError, match="but said 400"):
            demo.post(url + "/bad", {})
        server.shutdown()
    with pytest.raises(ConfigError, match="must answer within 1 s"):
        demo.post(url, {}, 1.0)
