"""The relay: every channel gets every message in order, a broken one holds up nobody."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from shapely.geometry import box

from daemon.feeds import alerts_of, collection
from daemon.kafka_channel import _in_order
from daemon.metrics import Metrics
from daemon.relay import Answer, FolderChannel, relay_once
from schemas.envelope import ALERT_TYPE, TOPIC_ALERTS
from schemas.legal import LegalStatus
from schemas.policy import Sensor
from updater import outbox
from updater.alert_rows import message
from updater.alerts import Look, raised
from updater.commit import OutboxRow, write_alert, write_outbox
from updater.outbox import Pending
from updater.types import Side, Sighting

AT = datetime(2024, 6, 18, tzinfo=UTC)


class Balking:
    """A channel that takes some messages of a round and no more."""

    name = "balking"

    def __init__(self, takes):
        self.takes = takes
        self.had = []

    def send(self, store, rows):
        taken = [row.seq for row in rows[: self.takes]]
        self.had += taken
        return Answer(taken)

    def close(self):
        pass


class Refusing:
    """A channel that will never take one message."""

    name = "kafka"

    def __init__(self, never):
        self.never = never
        self.had = []

    def send(self, store, rows):
        taken = [row.seq for row in rows if row.seq != self.never]
        self.had += taken
        refused = {self.never: "too large"} if self.never in {row.seq for row in rows} else {}
        return Answer(taken, refused)

    def close(self):
        pass


@pytest.fixture
def alerts(store):
    """Five alerts of unlike size in the outbox."""
    at = datetime(2024, 6, 18, tzinfo=UTC)
    look = Look("item", Sensor.PVA, at, at + timedelta(days=1), "map-guided/1", "ref")
    west, south, *_ = store.execute(
        "SELECT min(ST_XMin(geom)), min(ST_YMin(geom)) FROM map_now"
    ).fetchone()
    records = []
    for number in range(5):
        corner = (west + 50 * number, south)
        ground = box(*corner, corner[0] + 20 + 5 * number, corner[1] + 20)
        was = Side("CS2.2.1", "US1.1", LegalStatus.NON_ARTIF)
        now = Side("CS1.1.1.1", "US5", LegalStatus.ARTIF)
        sighting = Sighting(was, now, 0.9, 0.7, ("P",), ground)
        records.append(raised(sighting, look))
    with store.transaction() as cursor:
        for record in records:
            write_alert(cursor, record, event="e", now=at)
            body = message(record, departement=store.territory, crs=store.crs).model_dump_json()
            row = OutboxRow(f"{record.id}.1", ALERT_TYPE, TOPIC_ALERTS, record.id, body)
            write_outbox(cursor, [row], at)
    return records


def test_the_folder_gets_each_alert_once_and_the_feed(store, alerts, tmp_path):
    channel, metrics = FolderChannel(tmp_path), Metrics()
    assert relay_once([store], [channel], metrics) == 5
    assert relay_once([store], [channel], metrics) == 0
    written = {p.stem for p in (tmp_path / "alerts").glob("*.json")}
    assert written == {f"{r.id}.1" for r in alerts}
    event = json.loads(next((tmp_path / "alerts").glob("*.json")).read_text())
    assert event["specversion"] == "1.0" and event["type"] == ALERT_TYPE
    collection = json.loads((tmp_path / "feed" / f"alerts-{store.territory}.geojson").read_text())
    assert len(collection["features"]) == 5
    west, south, east, north = (
        f(c[i] for feature in collection["features"] for c in feature["geometry"]["coordinates"][0])
        for f, i in ((min, 0), (min, 1), (max, 0), (max, 1))
    )
    assert -6 < west < east < 10 and 41 < south < north < 52  # degrees, in France
    assert outbox.depth(store, "folder") == (0, None)


def test_a_channel_that_balks_keeps_its_place_and_holds_up_nobody(store, alerts, tmp_path):
    broken, folder, metrics = Balking(2), FolderChannel(tmp_path), Metrics()
    assert relay_once([store], [broken, folder], metrics) == 2 + 5
    waiting, since = outbox.depth(store, "balking")
    assert waiting == 3 and since is not None
    text = metrics.text().decode()
    assert 'millesimed_outbox_depth{channel="balking"} 3.0' in text
    assert 'millesimed_outbox_depth{channel="folder"} 0.0' in text
    broken.takes = 9
    relay_once([store], [broken, folder], metrics)
    assert broken.had == sorted(broken.had) and len(broken.had) == len(set(broken.had)) == 5


def test_the_feed_has_the_most_important_first(store, alerts):
    areas = [f["properties"]["area"] for f in collection(alerts_of(store))["features"]]
    assert areas == sorted(areas, reverse=True)


def test_what_is_refused_for_good_is_parked_and_offered_again_when_asked(store, alerts, tmp_path):
    seqs = [row.seq for row in outbox.pending(store, "kafka")]
    channel, metrics = Refusing(seqs[1]), Metrics()
    for _ in range(3):
        relay_once([store], [channel], metrics)
    assert channel.had == [seqs[0], *seqs[2:]]  # each once
    assert outbox.depth(store, "kafka") == (0, None)
    assert [(row.seq, reason) for row, reason in outbox.parked(store, "kafka")] == [
        (seqs[1], "too large")
    ]
    channel.never = None
    assert relay_once([store], [channel], metrics) == 0
    outbox.offer_again(store, "kafka")
    assert relay_once([store], [channel], metrics) == 1
    assert channel.had[-1] == seqs[1] and not outbox.parked(store, "kafka")


def test_a_message_that_waits_holds_up_its_own_key_only():
    rows = [Pending(n, f"m{n}", "t", "topic", key, "{}", AT) for n, key in enumerate("abcab", 1)]
    assert _in_order(rows, {2, 3, 4, 5}, {}) == [2, 3, 5]  # 4 waits for 1
    assert _in_order(rows, {2, 3, 4, 5}, {1: "too large"}) == [2, 3, 4, 5]
    assert _in_order(rows, set(), {}) == []


def test_a_folder_that_cannot_be_written_holds_up_no_other_channel(store, alerts, tmp_path):
    (tmp_path / "file").write_text("in the way")
    folder, other, metrics = FolderChannel(tmp_path / "file"), Balking(9), Metrics()
    assert relay_once([store], [folder, other], metrics) == 5
    assert outbox.depth(store, "folder")[0] == 5
