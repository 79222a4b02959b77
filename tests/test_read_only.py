"""The service on a file system that may not be written, as somebody who is not root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.world import made_world
from updater.store import Store
from updater.verify import verify

ROOT = Path(__file__).parent.parent
NOBODY = 65534
ROOTS_ONLY = """
set -e
mount --make-rprivate /
mount --bind {data} {data}
mount -t tmpfs tmpfs {tmp}
chmod 1777 {tmp}
mount -o remount,ro,bind /
! touch {outside} 2>/dev/null
exec setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs -- \\
    env -i PATH="$PATH" PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1 TMPDIR={tmp} \\
    {python} -m daemon.cli run --once --json --config {data}/m.toml
"""
"""Everything but a folder for data and one for temporary files is read-only; then root's rights
go."""


def somebody():
    """Nobody, or root where the interpreter or the code is in a folder that is closed to others."""
    places = [Path(sys.executable), Path(sys.executable).resolve(), ROOT / "daemon"]
    shut = [p for place in places for p in place.parents if not p.stat().st_mode & 0o001]
    return 0 if shut else NOBODY


@pytest.fixture
def place():
    """A folder that nobody can come to, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="millesimed-ro-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def isolated(command):
    """A command in a mount name space of its own."""
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd="/",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a file system read-only")
@pytest.mark.skipif(
    not (shutil.which("unshare") and shutil.which("setpriv")), reason="util-linux is not installed"
)
def test_an_event_is_taken_in_with_nothing_to_write_to_but_the_data(place):
    if isolated("mount --make-rprivate /").returncode:
        pytest.skip("mounting is not permitted here")
    data, tmp = place / "data", place / "tmp"
    tmp.mkdir()
    world = made_world(data, events=1)
    world.store.rename(data / "D032.duckdb")
    (data / "inbox").mkdir()
    (data / "inbox" / "1.json").write_bytes(world.events[0])
    (data / "inbox" / "2.json").write_bytes(b"poison")
    (data / "m.toml").write_text('db = "D032.duckdb"\ndetector = "siamese"\ndevice = "cpu"\n')
    user = somebody()
    for path in (data, *data.rglob("*")):
        os.chown(path, user, user)
    done = isolated(
        ROOTS_ONLY.format(
            data=data,
            tmp=tmp,
            outside=place / "x",
            user=user,
            root=ROOT,
            python=sys.executable,
        )
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert '"processed": 1' in done.stdout and '"dead_lettered": 1' in done.stdout, done.stdout
    for word in ("Read-only", "Permission denied", "not a writable directory", "cache"):
        assert word not in done.stderr, done.stderr[-4000:]
    assert list((data / "outbox").rglob("*.json")) and list((data / "outbox").rglob("*.png"))
    with Store.open(data / "D032.duckdb") as store:
        assert verify(store, deep=True).valid
