"""An inbox with things in it that are no events and cannot be read: the others go on."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.config import Settings
from daemon.inbox_source import AGAIN_SECONDS, InboxSource
from daemon.service import Service
from daemon.sources import SourceError
from schemas.policy import MAX_EVENT_BYTES
from tests.map_store import made_store
from tests.receivers import Clock

NOBODY = 65534
POISON = b'{"specversion": "1.0", "id": "poison"}'


def taken(source):
    """Names of what a source gives, until nothing is left that can be read."""
    found = []
    while not source.drained():
        message = source.next(0.0)
        if message is not None:
            found.append(message.path.name)
            source.done(message, failed=False)
    return found


@contextmanager
def as_nobody():
    """Without root's right to read everything, where the tests have it."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.fixture
def inbox():
    """A folder of whoever reads it; pytest's own may be closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="millesimed-inbox-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def test_a_file_without_rights_is_said_once_left_and_read_when_they_are_mended(inbox):
    clock = Clock(0.0)
    with as_nobody(), capture_logs() as logs:
        for name in ("1.json", "2.json", "3.json"):
            (inbox / name).write_bytes(POISON)
        (inbox / "2.json").chmod(0)
        with pytest.raises(PermissionError):
            (inbox / "2.json").read_bytes()
        source = InboxSource(inbox, clock=clock)
        assert taken(source) == ["1.json", "3.json"]
        assert source.drained() and source.backlog().lag == {"inbox": 1}
        for _ in range(3):
            clock.now += AGAIN_SECONDS
            assert taken(source) == []
        assert [(e["event"], e["file"]) for e in logs] == [("inbox_file_unreadable", "2.json")]
        (inbox / "2.json").chmod(0o600)
        assert taken(source) == []
        clock.now += AGAIN_SECONDS
        assert taken(source) == ["2.json"] and source.backlog().lag == {"inbox": 0}


def test_what_is_no_file_is_neither_waited_for_nor_followed(tmp_path):
    inbox = tmp_path / "inbox"
    source = InboxSource(inbox)
    os.mkfifo(inbox / "pipe.json")
    (inbox / "gone.json").symlink_to(tmp_path / "nothing")
    (inbox / "link.json").symlink_to("/etc/passwd")
    (inbox / "circle.json").symlink_to(inbox / "circle.json")
    (inbox / "folder.json").mkdir()
    (inbox / "good.json").write_bytes(POISON)
    with socket.socket(socket.AF_UNIX) as listening, capture_logs() as logs:
        listening.bind(str(inbox / "s.json"))
        began = time.monotonic()
        assert taken(source) == ["good.json"]
        assert time.monotonic() - began < 5
    said = {entry["file"]: entry["error"] for entry in logs}
    assert set(said) == {"pipe.json", "gone.json", "link.json", "circle.json", "s.json"}
    assert said["link.json"] == "it is a symbolic link" and "plain file" in said["pipe.json"]
    assert (inbox / "link.json").is_symlink() and not (inbox / "failed").exists()


def test_a_pipe_somebody_writes_to_is_not_read(tmp_path):
    source = InboxSource(tmp_path / "inbox")
    pipe = tmp_path / "inbox" / "pipe.json"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(POISON,), daemon=True)
    writer.start()
    assert source.next(0.2) is None
    writer.join(0.2)
    assert writer.is_alive()  # nobody has come to read
    handle = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer.join(5)
    assert not writer.is_alive() and os.read(handle, 100) == POISON
    os.close(handle)


def test_a_file_that_grows_beyond_the_limit_is_not_read_whole(tmp_path):
    source = InboxSource(tmp_path)
    (tmp_path / "large.json").write_bytes(b" " * (MAX_EVENT_BYTES + 1))
    (tmp_path / "fits.json").write_bytes(b" " * MAX_EVENT_BYTES)
    fits, large = source.next(0.0), source.next(0.0)
    assert len(fits.value) == fits.size == MAX_EVENT_BYTES
    assert large.value is None and large.size == MAX_EVENT_BYTES + 1


def test_an_inbox_that_is_gone_is_said_in_one_sentence(tmp_path):
    source = InboxSource(tmp_path / "inbox")
    (tmp_path / "inbox").rmdir()
    with pytest.raises(SourceError, match=r"cannot be listed.*put it back"):
        source.next(0.0)


def test_the_service_goes_on_beside_what_it_cannot_read(tmp_path):
    made_store(tmp_path / "D032.duckdb")[0].close()
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    os.mkfifo(inbox / "0.json")
    (inbox / "1.json").symlink_to("/etc/passwd")
    (inbox / "2.json").write_bytes(POISON)
    service = Service(Settings(db=[tmp_path / "D032.duckdb"]), once=True)
    service.run()
    assert service.received == 1 and (inbox / "failed" / "2.json").is_file()
    assert (inbox / "0.json").is_fifo() and (inbox / "1.json").is_symlink()
