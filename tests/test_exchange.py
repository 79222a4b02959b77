"""The exchange folder: files by task and content, checked, swept, and nothing outside it."""

import os
import time

import pytest
from pydantic import ValidationError

from daemon.exchange import ORPHAN_SECONDS, ClaimMissing, Exchange
from schemas.errors import UsageError
from schemas.task import Claim, task_id

TASK = task_id("D032", "urn:a#1")


@pytest.fixture
def exchange(tmp_path):
    made = Exchange(tmp_path / "exchange")
    made.prepare()
    return made


def test_a_file_is_what_was_announced_or_it_is_missing(exchange):
    claim = exchange.put("D032", TASK, "context", b"everything")
    assert exchange.get("D032", claim) == b"everything"
    other = exchange.put("D032", TASK, "context", b"something else")
    assert other.file != claim.file and exchange.get("D032", claim) == b"everything"
    (exchange.folder / "D032" / claim.file).write_bytes(b"altered")
    with pytest.raises(ClaimMissing, match="not the file that was announced"):
        exchange.get("D032", claim)
    exchange.remove("D032", TASK)
    with pytest.raises(ClaimMissing, match="same folder in every role"):
        exchange.get("D032", other)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", f"{TASK}.context", "a.arrow"])
def test_a_message_can_name_nothing_outside_the_folder(name):
    with pytest.raises(ValidationError):
        Claim(file=name, sha256="0" * 64)


def test_only_old_files_of_tasks_that_are_not_out_are_swept(exchange):
    out, gone = task_id("D032", "urn:a#2"), task_id("D032", "urn:a#3")
    for task in (out, gone, TASK):
        claim = exchange.put("D032", task, "judgement", task.encode())
        if task != TASK:
            old = time.time() - ORPHAN_SECONDS - 60
            os.utime(exchange.folder / "D032" / claim.file, (old, old))
    elsewhere = exchange.put("D031", gone, "judgement", b"x")
    old = time.time() - ORPHAN_SECONDS - 60
    os.utime(exchange.folder / "D031" / elsewhere.file, (old, old))
    assert exchange.sweep("D032", {out}) == 1
    left = {path.name.partition(".")[0] for path in (exchange.folder / "D032").iterdir()}
    assert left == {out, TASK}
    assert exchange.get("D031", elsewhere) == b"x"  # another process's


def test_who_owns_what_is_written_there(exchange, store):
    exchange.serve(store)
    ((name, ground),) = exchange.served().items()
    assert name == "D032" and ground.bounds[0] == pytest.approx(0.4, abs=1.5)


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="exchange"):
        Exchange(tmp_path / "file").prepare()
