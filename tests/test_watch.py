"""What is looked at from outside: backlogs by kind, what the stores remember, files, progress."""

import os
from datetime import UTC, datetime, timedelta

import pytest
import shapely
from shapely.geometry import box

from daemon.config import Settings
from daemon.inbox_source import InboxSource
from daemon.metrics import Metrics
from daemon.relay import FolderChannel, relay_once
from daemon.sources import Backlog
from daemon.watch import Watch
from schemas.envelope import ALERT_TYPE, TOPIC_ALERTS
from schemas.legal import LegalStatus
from schemas.policy import Sensor
from schemas.subscription import ChannelKind, Rhythm, Wish
from tests.map_store import made_store
from updater import outbox
from updater.alert_rows import message
from updater.alerts import Look, raised
from updater.commit import OutboxRow, add_image, write_alert, write_outbox
from updater.reads import ImageRecord, end_of
from updater.subscriptions import accepted, channel_name, save
from updater.types import Side, Sighting

NOON = datetime(2024, 6, 18, 12, tzinfo=UTC)  # a Tuesday; digests go out at six
SIDE = 600.0


@pytest.fixture
def kept(tmp_path):
    store, _ = made_store(tmp_path / "D032.duckdb", side=SIDE)
    with store:
        store.clock = lambda: NOON
        yield store


@pytest.fixture
def watched(kept, tmp_path):
    metrics, channels = Metrics(), [FolderChannel(tmp_path / "outbox")]
    source = InboxSource(tmp_path / "inbox")
    settings = Settings(db=[kept.path], inbox=tmp_path / "inbox")
    return Watch(metrics, settings, [kept], channels, source), metrics, channels


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"millesimed_{name}", labels)


def told(store, count, at):
    """Alerts in the outbox, committed at a time."""
    look = Look(f"item {at}", Sensor.PVA, at, at, "map-guided/1", "ref")
    was = Side("CS2.2.1", "US1.1", LegalStatus.NON_ARTIF)
    now = Side("CS1.1.1.1", "US5", LegalStatus.ARTIF)
    with store.transaction() as cursor:
        for number in range(count):
            ground = box(10 * number, 0, 10 * number + 8, 30)
            sighting = Sighting(was, now, 0.9, 0.7, (), ground)
            record = raised(sighting, look)
            write_alert(cursor, record, event="e", now=at)
            body = message(record, departement="D032", crs=store.crs).model_dump_json()
            row = OutboxRow(f"{record.id}.{at}", ALERT_TYPE, TOPIC_ALERTS, record.id, body)
            write_outbox(cursor, [row], at)


def subscribed(store, kind, *, rhythm=Rhythm.IMMEDIATE):
    wish = {ChannelKind.WEBHOOK: {"url": "https://a.example/"}}.get(kind, {})
    if kind is ChannelKind.MAIL:
        wish = {"address": "mairie@commune.example", "rhythm": rhythm}
    made = accepted(Wish(name=str(kind), channel=kind, **wish))
    save(store, made)
    return made


def test_what_subscribers_lack_is_counted_by_kind_of_channel(kept, watched):
    watch, metrics, _ = watched
    for _ in range(2):
        subscribed(kept, ChannelKind.WEBHOOK)
    subscribed(kept, ChannelKind.FEED)  # which nobody waits for
    told(kept, 3, NOON - timedelta(hours=2))
    watch.begin()
    assert value(metrics, "subscription_backlog", channel="webhook") == 6
    assert value(metrics, "subscription_waiting_seconds", channel="webhook") == 7200
    assert value(metrics, "subscription_backlog", channel="mail") == 0
    assert value(metrics, "subscription_backlog", channel="feed") is None


def test_a_digest_is_late_from_its_hour_on_not_from_the_alert_on(kept, watched):
    watch, metrics, _ = watched
    daily = subscribed(kept, ChannelKind.MAIL, rhythm=Rhythm.DAILY)
    told(kept, 2, NOON - timedelta(hours=7))  # at five: due at six today
    told(kept, 4, NOON - timedelta(hours=1))  # at eleven: due tomorrow
    watch.begin()
    assert value(metrics, "subscription_backlog", channel="mail") == 2
    assert value(metrics, "subscription_waiting_seconds", channel="mail") == 6 * 3600
    outbox.advance(kept, channel_name(daily.id), 2, parked={2: "no such mailbox"})
    watch.look()
    assert value(metrics, "subscription_backlog", channel="mail") == 0
    assert value(metrics, "subscription_waiting_seconds", channel="mail") == 0
    assert value(metrics, "parked_messages", channel="mail") == 1


def test_the_outbox_of_all_stores_is_one_figure_and_an_empty_one_moves_the_heartbeat(
    kept, watched, tmp_path
):
    _, metrics, channels = watched
    second, _ = made_store(tmp_path / "D031.duckdb", seed=1)
    with second:
        second.clock = kept.clock
        told(kept, 2, NOON - timedelta(minutes=5))
        told(second, 3, NOON - timedelta(minutes=9))
        both = Watch(
            metrics, Settings(db=[]), [kept, second], channels, InboxSource(tmp_path / "in")
        )
        both.begin()
        metrics.acquired("commit", NOON)
        both.look()
        assert value(metrics, "outbox_depth", channel="folder") == 5
        assert value(metrics, "outbox_age_seconds", channel="folder") == 540
        newest = "newest_acquisition_timestamp_seconds"
        assert value(metrics, newest, stage="publish") is None
        assert relay_once([kept, second], channels, metrics) == 5
        assert value(metrics, "outbox_depth", channel="folder") == 0
        assert value(metrics, newest, stage="publish") == NOON.timestamp()


def test_files_in_the_inbox_are_events_that_wait(watched, tmp_path):
    watch, metrics, _ = watched
    watch.begin()
    assert value(metrics, "source_lag", partition="inbox") == 0
    assert value(metrics, "source_waiting_seconds") == 0
    for name, age in (("a.json", 100), ("b.json", 900)):
        path = tmp_path / "inbox" / name
        path.write_text("{}")
        since = (NOON - timedelta(seconds=age)).timestamp()
        os.utime(path, (since, since))
    (tmp_path / "inbox" / ".c.part").write_text("half")
    watch.look()
    assert value(metrics, "source_lag", partition="inbox") == 2
    assert value(metrics, "source_waiting_seconds") == 900


class Shared:
    """A source whose partitions come and go, as those of a consumer group do."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def backlog(self):
        return Backlog(self.answers.pop(0), None)


def test_a_partition_another_process_took_over_is_no_longer_ours_to_tell(kept):
    metrics = Metrics()
    source = Shared({"0": 4, "1": 9}, {"1": 7})
    watch = Watch(metrics, Settings(db=[]), [kept], [], source)
    watch.begin()
    assert value(metrics, "source_lag", partition="0") == 4
    watch.look()
    assert value(metrics, "source_lag", partition="0") is None
    assert value(metrics, "source_lag", partition="1") == 7


def test_a_restart_remembers_what_the_store_does(kept, watched):
    watch, metrics, _ = watched
    watch.begin()
    name = "newest_acquisition_timestamp_seconds"
    assert value(metrics, name, stage="commit") is None  # nobody knows yet
    assert value(metrics, "last_event_timestamp_seconds") == NOON.timestamp()
    shown = value(metrics, "map_timestamp_seconds", departement="D032")
    assert shown == end_of(2021).timestamp()

    flown, heard = NOON - timedelta(days=40), NOON - timedelta(days=3)
    with kept.transaction() as cursor:
        cursor.execute(
            "INSERT INTO events VALUES ('k', 'i', 'x', ?, 'pva', 'd', 'evolution', 0, '{}', ?)",
            [flown, heard],
        )
    watch.begin()
    for stage in ("validate", "locate", "detect", "plan", "commit"):
        assert value(metrics, name, stage=stage) == flown.timestamp()
    assert value(metrics, "last_event_timestamp_seconds") == heard.timestamp()


def seen(item, sensor, ground, year):
    at = datetime(year, 7, 1, tzinfo=UTC)
    return ImageRecord(item, "x.tif", sensor, at, 0.2, ground)


def test_progress_is_the_ground_imagery_of_a_year_has_looked_at(kept, watched, monkeypatch):
    monkeypatch.setattr("daemon.watch.PROGRESS_SHARE", 1e9)  # without a rest in between
    watch, metrics, _ = watched
    watch.begin()
    labels = {"departement": "D032", "millesime": "2024"}
    assert value(metrics, "millesime_covered_ratio", **labels) is None
    assert value(metrics, "map_area_square_meters", departement="D032") == pytest.approx(SIDE**2)
    west = box(0, 0, SIDE / 2, SIDE)
    add_image(kept, seen("old", Sensor.PVA, box(0, 0, SIDE, SIDE), 2021))  # of the map itself
    add_image(kept, seen("s2", Sensor.SENTINEL_2, box(0, 0, SIDE, SIDE), 2024))  # moves no line
    add_image(kept, seen("a", Sensor.PVA, west, 2024))
    add_image(kept, seen("b", Sensor.PVA, shapely.affinity.translate(west, -50), 2024))  # again
    watch.look()
    assert value(metrics, "millesime_covered_ratio", **labels) == pytest.approx(0.5, abs=0.1)
    add_image(kept, seen("c", Sensor.PLEIADES, box(-9, -9, SIDE + 9, SIDE + 9), 2024))
    watch.look()
    assert value(metrics, "millesime_covered_ratio", **labels) == pytest.approx(1)
    assert value(metrics, "millesime_covered_ratio", departement="D032", millesime="2021") is None


def test_files_disk_and_checkpoints_are_measured(kept, watched):
    watch, metrics, _ = watched
    told(kept, 3, NOON)
    watch.begin()
    place = {"departement": "D032"}
    assert value(metrics, "store_bytes", **place) == kept.path.stat().st_size
    assert value(metrics, "store_wal_bytes", **place) > 0
    assert value(metrics, "store_free_bytes", **place) > 1e6
    watch.checkpoint()
    watch.look()
    assert value(metrics, "checkpoint_seconds_count", **place) == 1
    assert value(metrics, "store_wal_bytes", **place) == 0
    found = {
        s.labels["departement"]: (float(s.labels["longitude"]), float(s.labels["latitude"]))
        for f in metrics.registry.collect()
        if f.name == "millesimed_departement_info"
        for s in f.samples
    }
    assert found.keys() == {"D032"}
