"""Bad input by the thousand: an event or a sentence, soon, and in little memory."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import AcquisitionEvent, parse_acquisition
from schemas.errors import InvalidEvent, MillesimedError
from tests.faults.inputs import binary, bombs, is_sentence, judged, valid, wrong
from tests.faults.tally import tally

ROOT = Path(__file__).parents[2]
DEADLINE_SECONDS = 5.0
"""For one input, on a machine that does other things too; they take a millisecond each."""
SWELLING_BYTES = 150_000_000
"""What reading a megabyte may take at its peak: Python's objects are fifty times their JSON."""
LEAK_KB = 200_000


def test_what_is_changed_is_valid_to_begin_with():
    assert parse_acquisition(*valid()) == parse_acquisition(*binary())


def tried(count: int, seed: int) -> tuple[int, int]:
    """Judge so many inputs; gives how many were accepted and refused."""
    chance, accepted = random.Random(seed), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        value, headers = wrong(chance)
        began = time.process_time()
        found = judged(value, headers)
        assert time.process_time() - began < DEADLINE_SECONDS, value[:500]
        accepted += isinstance(found, AcquisitionEvent)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < LEAK_KB
    return accepted, count - accepted


def test_five_thousand_wrong_events_are_events_or_sentences():
    accepted, refused = tried(5_000, seed=1)
    assert refused > 2_500  # the changes do change something
    tally("mutated event, in memory", tried=accepted + refused)


@pytest.mark.parametrize("name", sorted(bombs()))
def test_an_input_made_to_swell_is_refused_soon_and_in_little_memory(name):
    value = bombs()[name]
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(MillesimedError) as caught:
            parse_acquisition(value, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert is_sentence(str(caught.value))
    assert time.process_time() - began < DEADLINE_SECONDS
    assert peak < SWELLING_BYTES, f"{peak / 1e6:.0f} MB"
    tally("event made to swell", tried=1)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_headers_around_a_valid_item_are_an_event_or_a_sentence(data):
    value, headers = binary()
    names = st.sampled_from([*headers, "CE_ID", "ce_", "ce_time", "content-type", "ce_x"])
    drawn = data.draw(st.dictionaries(names, st.binary(max_size=30), max_size=4))
    judged(value, headers | drawn)
    judged(value, drawn)


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
def test_no_attribute_is_made_up(name):
    """The library would give an event without an id another one each time it is read."""
    value, headers = binary()
    del headers[f"ce_{name}"]
    with pytest.raises(InvalidEvent, match=f"no {name}"):
        parse_acquisition(value, headers)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_wrong_events_are_events_or_sentences():
    accepted, refused = tried(100_000, seed=2)
    tally("mutated event, in memory", tried=accepted + refused)


def guided(what: str, runs: int, seconds: int, folder: Path) -> int:
    """How many inputs a coverage-guided fuzzer of ours tried; what it finds is a failure."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", f"tests.faults.{what}", str(folder)),
            *(f"-runs={runs}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=20000", "-seed=3"),
            *(f"-max_total_time={seconds}", f"-artifact_prefix={folder}/"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (text for text in done.stderr.splitlines() if text.startswith("Done "))
    return int(line.split()[1])


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_coverage_guided_fuzzer_finds_nothing(tmp_path):
    pytest.importorskip("atheris")
    tried = guided("fuzz_events", 100_000, 900, tmp_path)
    assert tried >= 100_000
    tally("event from a coverage-guided fuzzer", tried=tried)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_nor_does_one_that_makes_maps(tmp_path):
    pytest.importorskip("atheris")
    tried = guided("fuzz_maps", 20_000, 900, tmp_path)
    assert tried >= 5_000
    tally("map from a coverage-guided fuzzer, import", tried=tried)


def imported(count: int, seed: int, folder: Path) -> int:
    """Maps gone wrong, in a process of their own: a crash in native code is a failure here."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz_importer", str(folder), str(count), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[0])


def test_some_hundred_maps_gone_wrong_are_maps_or_sentences(tmp_path):
    tally("mutated map file, import", tried=imported(250, 1, tmp_path))


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_ten_thousand_maps_gone_wrong_are_maps_or_sentences(tmp_path):
    tally("mutated map file, import", tried=imported(10_000, 2, tmp_path))
