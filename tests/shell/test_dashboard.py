"""The two pages of a run: what is started, what is missing, and that all of it ends."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from autorec import dashboard
from autorec.errors import ConfigError, MissingExtraError

pytest.importorskip("optuna_dashboard")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'autorec-automl\[dashboard\]'"):
        dashboard.commands(run, 0)


def test_both_pages_are_on_loopback(run: Path) -> None:
    (_, first, optuna), (name, second, mlflow) = dashboard.commands(run, 0)
    assert first.startswith("http://127.0.0.1:") and second.startswith("http://127.0.0.1:")
    assert name == "MLflow" and first != second
    assert str(run / "study.journal") in optuna
    for command in (optuna, mlflow):
        assert command[command.index("--host") + 1] == "127.0.0.1"


def test_a_taken_port_is_named(run: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"{port} on 127.0.0.1 is taken; pass --port"):
            dashboard.commands(run, port)
        assert dashboard.free_port(port) > port


_SERVER = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port={}, bind='127.0.0.1')"


def test_servers_start_answer_and_end(tmp_path: Path) -> None:
    port = dashboard.free_port()
    url = f"http://127.0.0.1:{port}/"
    with dashboard.Servers(tmp_path / "logs") as servers:
        servers.start("Some Page", [sys.executable, "-c", _SERVER.format(port)])
        servers.wait_until(url + "#/part", 20.0)
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert answer.status == 200
    assert (tmp_path / "logs" / "some-page.log").is_file()
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=2)


def test_a_server_that_ends_is_told_with_its_log(tmp_path: Path) -> None:
    with dashboard.Servers(tmp_path) as servers:
        servers.start("page", [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"])
        with pytest.raises(ConfigError, match=r"(?s)ended with code 3.*no such table"):
            servers.wait_until("http://127.0.0.1:9/", 20.0)


def test_a_page_that_never_answers_is_told(tmp_path: Path) -> None:
    with dashboard.Servers(tmp_path) as servers:
        servers.start("page", [sys.executable, "-c", "import time; time.sleep(60)"])
        port = dashboard.free_port()
        with pytest.raises(ConfigError, match="must answer within 0 s, but did not"):
            servers.wait_until(f"http://127.0.0.1:{port}/", 0.3)


def test_ctrl_c_ends_optuna_page_of_a_real_run(run: Path) -> None:
    page = dashboard.commands(run, 0)[0]
    code = (
        "import sys\nfrom pathlib import Path\nfrom autorec import dashboard\n"
        f"dashboard.serve(Path({str(run)!r}), [{page!r}], lambda: print('up', flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    killer = threading.Timer(60.0, process.kill)
    killer.start()
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    with urllib.request.urlopen(page[1] + "api/studies", timeout=10) as answer:
        assert b"autorec" in answer.read()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)  # an impatient second one changes nothing
    assert process.wait(20) == 0
    killer.cancel()
    process.stdout.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(page[1], timeout=2)
