"""An image that ends its process is judged apart, and then becomes a dead letter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from daemon.announce import event_bytes, item_of, when
from daemon.judging import context_of, judged_context
from daemon.locate import locate
from daemon.outcomes import Interrupted
from daemon.suspects import (
    GIVE_UP_AFTER,
    SUSPECT_AFTER,
    DetectorDied,
    judged_warily,
    observed_warily,
)
from schemas.envelope import parse_acquisition
from schemas.policy import Sensor
from tests.faults.tally import tally
from tests.scenes import FLOWN_AFTER, announced, prepared
from updater.faults import VARIABLE
from updater.review import dead_letters
from updater.store import Store
from updater.verify import verify


@pytest.fixture(scope="module")
def settings(tmp_path_factory, small_scene):
    return prepared(tmp_path_factory.mktemp("suspects"), small_scene)


@pytest.fixture(scope="module")
def context(settings, small_scene):
    _, body = event_bytes(item_of(small_scene.after, acquired=when(FLOWN_AFTER), sensor=Sensor.PVA))
    item = parse_acquisition(body, {}).item
    with Store.open(settings.db[0]) as store:
        return context_of(store, item, locate(store, item, roots=()))


def marked(folder, key, deaths):
    mark = folder / "one.judging"
    mark.write_text(json.dumps({"key": key, "begun": deaths}))
    return mark


def test_apart_the_same_is_found_progress_is_told_and_the_mark_is_gone(settings, context, tmp_path):
    told = []
    mark = marked(tmp_path, "image", SUSPECT_AFTER)
    apart = judged_warily(mark, "image", context, settings, lambda *now: told.append(now[0]))
    here = judged_context(context, settings, lambda *_: None)
    assert replace(apart, pixels_per_second=0) == replace(here, pixels_per_second=0)
    assert here.regions and not mark.exists()
    assert len(set(told)) > 1


def test_one_that_dies_apart_too_is_named_with_how_it_ended(
    settings, context, tmp_path, monkeypatch
):
    monkeypatch.setenv(VARIABLE, "in-detect")
    mark = marked(tmp_path, "image", SUSPECT_AFTER)
    with pytest.raises(DetectorDied, match="SIGKILL, as 2 before it"):
        judged_warily(mark, "image", context, settings, lambda *_: None)
    assert not mark.exists()


def test_a_stop_meanwhile_is_no_death(settings, context, tmp_path):
    def stop(*_):
        raise Interrupted

    mark = marked(tmp_path, "image", SUSPECT_AFTER)
    with pytest.raises(Interrupted):
        judged_warily(mark, "image", context, settings, stop)
    assert not mark.exists()


@pytest.mark.parametrize("said", ['{"key": "another", "begun": 9}', "{", "[]", "{}"])
def test_marks_of_others_and_what_is_no_mark_count_for_nothing(
    settings, context, tmp_path, said, monkeypatch
):
    mark = tmp_path / "one.judging"
    mark.write_text(said)
    seen = []
    monkeypatch.setattr(
        "daemon.suspects.judged_context", lambda *_: seen.append(json.loads(mark.read_text()))
    )
    judged_warily(mark, "image", context, settings, lambda *_: None)
    assert seen == [{"key": "image", "begun": 1}] and not mark.exists()


def test_a_service_that_dies_at_an_image_ends_with_a_dead_letter_and_goes_on(tmp_path, small_scene):
    settings = prepared(tmp_path, small_scene)
    event_id = announced(settings.inbox, small_scene.after)
    config = tmp_path / "millesimed.toml"
    config.write_text(
        'db = ["D032.duckdb"]\ninbox = "inbox"\noutbox = "outbox"\ndevice = "cpu"\n'
        "[http]\nenabled = false\n"
    )
    command = [sys.executable, "-m", "daemon.cli", "run", "--config", str(config), "--once"]
    for wanted in (-signal.SIGKILL, -signal.SIGKILL, 0):
        done = subprocess.run(
            command, env=os.environ | {VARIABLE: "in-detect"}, capture_output=True, check=False
        )
        assert done.returncode == wanted, done.stderr.decode()
        with Store.open(settings.db[0]) as store:
            valid = verify(store).valid
            letters = dead_letters(store)
        tally("kill -9 in-detect (inbox)", tried=int(wanted != 0), invalid=int(not valid))
        assert valid
    (letter,) = letters
    assert (letter.reason, letter.event) == ("detector-died", event_id)
    assert not list(tmp_path.glob("*.judging"))
    assert [path.stem for path in (settings.inbox / "failed").glob("*.json")] == [event_id]


def read_nothing(progress):
    progress("read", 1, 1)


def read_and_die(progress):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("deaths", [SUSPECT_AFTER - 1, SUSPECT_AFTER])
def test_what_can_be_read_is_taken_into_its_history_by_the_service_itself(tmp_path, deaths):
    mark, told = marked(tmp_path, "look", deaths), []
    found = observed_warily(mark, "look", os.getpid, read_nothing, lambda *now: told.append(now))
    assert found == os.getpid() and not mark.exists()
    assert (("read", 1, 1) in told) == (deaths >= SUSPECT_AFTER)


def test_an_image_of_a_series_that_cannot_be_read_ends_no_further_process(tmp_path):
    mark = marked(tmp_path, "look", SUSPECT_AFTER)
    with pytest.raises(DetectorDied, match="SIGKILL, as 2 before it"):
        observed_warily(mark, "look", pytest.fail, read_and_die, lambda *_: None)
    assert not mark.exists()


def test_an_image_of_a_series_that_can_be_read_is_given_up_all_the_same(tmp_path):
    mark = marked(tmp_path, "look", GIVE_UP_AFTER)
    with pytest.raises(DetectorDied, match="4 processes ended"):
        observed_warily(mark, "look", pytest.fail, pytest.fail, lambda *_: None)
    assert not mark.exists()
