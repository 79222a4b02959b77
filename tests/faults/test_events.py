"""Events gone wrong on their whole way: each is kept with its reason, none stops the next one."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest

from daemon.announce import drop
from daemon.config import Settings
from daemon.inbox_source import InboxSource
from daemon.metrics import Metrics
from daemon.pipeline import Outcome, Pipeline
from daemon.sources import Message, SourceError
from schemas.dead_letter import Origin
from schemas.policy import MAX_EVENT_BYTES
from tests.faults.inputs import is_sentence, valid, wrong
from tests.faults.tally import tally
from tests.map_store import building, made_store, patched
from updater.migrations import MIGRATIONS, SCHEMA_VERSION
from updater.reads import map_now
from updater.review import dead_letters
from updater.store import Store, _attach
from updater.verify import verify


@pytest.fixture
def opened(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb", seed=3)
    with store:
        yield store


def pipeline(store: Store) -> Pipeline:
    return Pipeline([store], Settings(device="cpu"), Metrics())


def handles(store: Store, count: int, seed: int) -> None:
    carrier, chance = pipeline(store), random.Random(seed)
    places = set()
    for number in range(count):
        value, headers = wrong(chance)
        origin = Origin(source="kafka", topic="t", partition=0, offset=number)
        outcome = carrier.handle(Message(value, headers, origin, len(value)))
        assert outcome is Outcome.DEAD_LETTERED  # the map is of another place than the events
        places.add(number)
    kept = dead_letters(store)
    assert {letter.origin.offset for letter in kept} == places
    for letter in kept:
        assert letter.reason != "internal", letter.message
        assert is_sentence(letter.message), letter.message
    assert store.execute("SELECT next_offset FROM offsets").fetchone() == (count,)
    assert verify(store, deep=True).valid
    tally("mutated event, service and store", tried=count, lost=count - len(kept))


def test_some_hundred_wrong_events_are_kept_each_with_its_reason(opened):
    handles(opened, 300, seed=5)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_ten_thousand_wrong_events_are_kept_each_with_its_reason(opened):
    handles(opened, 10_000, seed=6)


def take(source: InboxSource, carrier: Pipeline) -> list[Outcome]:
    outcomes = []
    while (message := source.next(0.01)) is not None:
        outcomes.append(carrier.handle(message))
        source.done(message, failed=outcomes[-1] is Outcome.DEAD_LETTERED)
    return outcomes


def test_files_of_one_name_are_all_kept(opened, tmp_path):
    source, carrier = InboxSource(tmp_path / "inbox"), pipeline(opened)
    for size in (MAX_EVENT_BYTES + 1, MAX_EVENT_BYTES + 2, 7):
        drop(source.folder, "same", b"x" * size)
        assert take(source, carrier) == [Outcome.DEAD_LETTERED]
    kept = sorted(path.stat().st_size for path in (source.folder / "failed").iterdir())
    assert kept == [7, MAX_EVENT_BYTES + 1, MAX_EVENT_BYTES + 2]
    assert len(dead_letters(opened)) == 3


def test_a_name_that_is_no_text_stops_nobody(opened, tmp_path):
    source, carrier = InboxSource(tmp_path / "inbox"), pipeline(opened)
    odd = os.path.join(os.fsencode(source.folder), b"a\xff\xfe.json")  # noqa: PTH118 - bytes
    with open(odd, "wb") as stream:  # noqa: PTH123
        stream.write(b"{}")
    drop(source.folder, "z", b"{}")
    assert take(source, carrier) == [Outcome.DEAD_LETTERED] * 2
    assert {letter.origin.path for letter in dead_letters(opened)} == {
        "a\\udcff\\udcfe.json",
        "z.json",
    }


def test_an_inbox_that_cannot_be_tidied_is_a_sentence_and_the_event_is_known(opened, tmp_path):
    source, carrier = InboxSource(tmp_path / "inbox"), pipeline(opened)
    drop(source.folder, "a", b"{}")
    (source.folder / "failed").write_text("in the way")
    with pytest.raises(SourceError) as caught:
        take(source, carrier)
    assert is_sentence(str(caught.value))
    (source.folder / "failed").unlink()
    assert take(InboxSource(source.folder), carrier) == [Outcome.DEAD_LETTERED]
    assert len(dead_letters(opened)) == 1


def test_an_event_without_an_id_has_no_effect_however_often_it_comes(opened):
    value = json.loads(valid()[0])
    del value["id"]
    body, carrier = json.dumps(value).encode(), pipeline(opened)
    origin = Origin(source="kafka", topic="t", offset=1)
    for _ in range(3):
        assert carrier.handle(Message(body, {}, origin, len(body))) is Outcome.DEAD_LETTERED
    (letter,) = dead_letters(opened)
    assert letter.reason == "schema-invalid" and "no id" in letter.message


def test_a_store_of_the_first_schema_is_migrated_whole(tmp_path):
    made, polygons = made_store(tmp_path / "new.duckdb", seed=3)
    made.close()
    path = tmp_path / "old.duckdb"
    connection = _attach(path, read_only=False)
    connection.execute(MIGRATIONS[0])
    connection.execute(f"ATTACH '{made.path}' AS source (READ_ONLY)")
    for table in ("meta", "polygons", "zone_construite"):
        connection.execute(f"INSERT INTO store.{table} SELECT * FROM source.{table}")
    connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    connection.execute("SELECT nextval('version_seq') FROM range(?)", [len(polygons)])
    first, second = connection.execute("SELECT version FROM polygons LIMIT 2").fetchall()
    connection.execute(
        "INSERT INTO images VALUES ('i', '/i.tif', 'pva', now(), 0.2, ST_Point(0, 0), now())"
    )
    connection.close()
    assert first != second
    shutil.copy(path, tmp_path / "copy.duckdb")
    with Store.open(path) as store:
        assert store.meta("schema") == str(SCHEMA_VERSION)
        assert len(map_now(store)) == len(polygons) and verify(store, deep=True).valid
        assert store.execute("SELECT item, elevation FROM images").fetchall() == [("i", None)]
        assert not patched(store, 1, [building(300, 300)]).is_empty
    with Store.open(path) as store:
        assert verify(store, deep=True).valid
    tally("store of an older schema", tried=1)
