"""A store that is killed at random instants while it is patched loses nothing and stays whole."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.tally import tally
from tests.faults.writer import SIDE, regions_of
from tests.map_store import content, made_store, patched
from updater.errors import StoreError
from updater.reads import as_of, current_in, end_of
from updater.store import Store
from updater.verify import verify

FAULT = "kill -9 at a random instant (patching)"
PATCHED_SECONDS = 1200.0
"""Only a hang takes that long for a thousand patches, however busy the machine."""


def start(path: Path, events: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.writer", str(path), str(events)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"open\n", process.stderr.read().decode()[-2000:]
    return process


def state(path: Path):
    with Store.open(path) as store:
        events = store.execute("SELECT key, changed FROM events ORDER BY key").fetchall()
        return content(as_of(store, valid_at=end_of(2030))), events


def looked_at(path: Path, done: int) -> int:
    """Open what a kill has left, which must answer and be whole; gives how many events it has."""
    try:
        with Store.open(path) as store:
            whole = bool(current_in(store, (0.0, 0.0, 300.0, 300.0))) and verify(store).valid
            (count,) = store.execute("SELECT count(*) FROM events").fetchone()
    except StoreError:
        tally(FAULT, tried=1, unopened=1)
        raise
    tally(FAULT, tried=1, lost=max(0, done - count), invalid=int(not whole))
    assert whole
    assert count >= done  # nothing that was committed is lost
    return count


def survives(tmp_path: Path, *, kills: int, events: int, deep: bool) -> None:
    fresh, _ = made_store(tmp_path / "fresh.duckdb", seed=3, cells=600, side=SIDE)
    fresh.close()
    killed, whole = tmp_path / "killed.duckdb", tmp_path / "whole.duckdb"
    shutil.copy(tmp_path / "fresh.duckdb", killed)
    shutil.copy(tmp_path / "fresh.duckdb", whole)
    chance = random.Random(kills)
    done = 0
    for _ in range(kills):
        process = start(killed, events)
        time.sleep(chance.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = looked_at(killed, done)
    process = start(killed, events)
    assert process.wait(timeout=PATCHED_SECONDS) == 0
    with Store.open(whole) as store:
        for number in range(events):
            patched(store, number, regions_of(number))
    (map_, found), (wanted_map, wanted) = state(killed), state(whole)
    lost, doubled = len(set(wanted) - set(found)), len(found) - len(set(found))
    tally(f"a store killed {kills} times and one left alone", tried=1, lost=lost, doubled=doubled)
    assert found == wanted
    assert map_ == wanted_map
    with Store.open(killed) as store:
        assert verify(store, deep=deep).valid


def test_a_few_kills_lose_nothing(tmp_path):
    survives(tmp_path, kills=8, events=60, deep=True)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_thousand_patches_and_a_hundred_kills_lose_nothing(tmp_path):
    survives(tmp_path, kills=100, events=1000, deep=False)
