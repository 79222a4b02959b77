"""The page of guarantees says what a run counted, and says so where a promise broke."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.guarantees import document, table
from tests.faults.tally import Row, failure, rows, tally
from updater.faults import POINTS

PAGE = Path(__file__).parents[1] / "docs" / "guarantees.md"
FEWEST_KILLS = 200


def counted(tmp_path, monkeypatch):
    place = tmp_path / "tally.json"
    monkeypatch.setenv("MILLESIMED_TALLY", str(place))
    tally("killed while patching", tried=8)
    tally("full disk | commit", tried=1200)
    tally("killed while patching", tried=100)
    return place


def test_rows_of_one_fault_are_added_up_in_the_order_they_came(tmp_path, monkeypatch):
    place = counted(tmp_path, monkeypatch)
    assert rows(place) == [Row("killed while patching", 108), Row("full disk | commit", 1200)]


def test_nothing_is_written_where_nobody_asks(tmp_path, monkeypatch):
    monkeypatch.delenv("MILLESIMED_TALLY", raising=False)
    monkeypatch.chdir(tmp_path)
    tally("x", tried=1)
    assert not list(tmp_path.iterdir())


def test_the_page_is_a_table_and_a_verdict_for_each_promise(tmp_path, monkeypatch):
    page = document(rows(counted(tmp_path, monkeypatch)))
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert {line.replace("\\|", "").count("|") for line in table} == {7}
    assert table[2] == "| killed while patching | 108 | 0 | 0 | 0 | 0 |"
    assert "1\N{NO-BREAK SPACE}308 faults in all." in page
    assert page.count("held every time") == 3 and "broken" not in page


def test_a_broken_promise_is_said_and_fails_the_run(tmp_path, monkeypatch):
    place = counted(tmp_path, monkeypatch)
    tally("full disk | commit", tried=1, lost=1, doubled=1)
    page = document(rows(place))
    assert "no alert is lost: **broken 2 times**" in page and page.count("held every time") == 2
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.guarantees", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and done.stdout == page


def test_a_test_that_failed_is_said_and_fails_the_run(tmp_path, monkeypatch):
    place = counted(tmp_path, monkeypatch)
    failure("tests/faults/test_x.py::test_y")
    page = document(rows(place))
    assert page.endswith("- **failed: tests/faults/test_x.py::test_y**\n")
    assert page.count("held every time") == 3 and "1\N{NO-BREAK SPACE}308 faults" in page
    command = [sys.executable, "-m", "tests.faults.guarantees", str(place)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_a_page_gives_back_its_rows(tmp_path, monkeypatch):
    found = rows(counted(tmp_path, monkeypatch))
    assert table(document(found)) == found
    with pytest.raises(ValueError, match="make the page again"):
        table(document(found).replace("tried", "attempts"))


def test_the_page_in_the_documents_is_of_the_form_the_generator_makes():
    page = PAGE.read_text(encoding="utf-8")
    assert document(table(page)) == page, "make docs/guarantees.md again from a run"


def test_the_page_tells_of_every_step_and_of_enough_kills_without_a_loss():
    found = table(PAGE.read_text(encoding="utf-8"))
    kills = {row.fault: row.tried for row in found if row.fault.startswith("kill -9")}
    for point in POINTS:
        assert any(fault.startswith(f"kill -9 {point} ") and n for fault, n in kills.items()), point
    of_service = [n for fault, n in kills.items() if fault.endswith(("(Kafka)", "(inbox)"))]
    assert sum(of_service) >= FEWEST_KILLS
    ended = [row.fault for row in found if row.fault.startswith("a service killed")]
    assert {fault.rsplit(" ", 1)[1] for fault in ended} == {"(Kafka)", "(inbox)"}
    assert all((row.lost, row.doubled, row.invalid, row.unopened) == (0, 0, 0, 0) for row in found)
    assert all(row.tried for row in found)
