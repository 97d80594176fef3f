"""The doctor and the list of data sets, on a machine as it is and on one that lacks things."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autorec import cli, doctor
from autorec.data import datasets


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AUTOREC_DATA", raising=False)


def by_name() -> dict[str, doctor.Check]:
    """Return the checks by their name."""
    return {check.name: check for check in doctor.examine()}


def test_every_check_has_a_state_and_what_is_not_ok_a_fix() -> None:
    checks = doctor.examine()
    assert {c.state for c in checks} <= {doctor.OK, doctor.MISSING, doctor.FAULT}
    assert [c.name for c in checks if c.state != doctor.OK and not c.fix] == []
    names = {"python", "packages", "cores", "memory", "torch", "cuda", "triton", "cache"}
    assert names | {"cpu flags", "dashboard", "AUTOREC_DATA"} <= {c.name for c in checks}


def test_what_is_lacking_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    versions = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda n: None if n == "lightgbm" else versions(n))
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("AUTOREC_CACHE", str(blocked / "cache"))
    monkeypatch.setenv("AUTOREC_DATA", str(tmp_path / "absent"))
    found = doctor.examine()
    faults = {c.name: c for c in found if c.state == doctor.FAULT}
    assert set(faults) == {"packages", "cache", "AUTOREC_DATA"}
    assert faults["packages"].value == "lacking lightgbm"
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert done.exit_code == 1 and "lacking lightgbm" in done.output


def test_a_check_that_breaks_is_a_fault_and_the_rest_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken() -> Iterator[doctor.Check]:
        yield doctor.Check("first", doctor.OK, "")
        raise OSError("no such device")

    monkeypatch.setattr(doctor, "_memory", broken)
    found = by_name()
    assert found["broken"].value == "OSError: no such device"
    assert found["torch"].state == doctor.OK


def test_the_doctor_prints_each_check() -> None:
    done = CliRunner().invoke(cli.app, ["doctor"])
    assert max(len(line) for line in done.output.splitlines()) <= 100
    for check in doctor.examine():
        assert re.search(rf"^ {re.escape(check.name)} +{check.state}", done.output, re.MULTILINE)


def test_data_sets_that_are_absent_tell_where_to_get_them() -> None:
    found = {one.name: one for one in doctor.known_datasets()}
    assert set(found) == set(datasets.names())
    assert found["movielens-100k"].state == "downloads"
    assert found["frappe"].state == "by hand" and "BARS" in found["frappe"].where
    done = CliRunner().invoke(cli.app, ["datasets"])
    assert done.exit_code == 0
    assert [name for name in found if name not in done.output] == []


def test_data_sets_that_are_here_tell_their_rows(
    data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOREC_DATA", str(data_root))
    found = {one.name: one for one in doctor.known_datasets()}
    assert found["frappe"].rows.split() == ["202,027", "57,722", "28,860"]
    assert (found["frappe"].state, found["frappe"].task) == ("here", "ctr")
    assert "frappe" in by_name()["AUTOREC_DATA"].value
