"""The relay of stores at rest, and the watch over what was asked for."""

from datetime import UTC, datetime

from daemon.config import HttpSettings, Settings
from daemon.inbox_source import InboxSource
from daemon.metrics import Metrics
from daemon.relay import FolderChannel
from daemon.roles import RelayService
from daemon.watch import Watch
from schemas.dead_letter import Origin
from schemas.envelope import CHANGE_TYPE, TASK_TYPE, TOPIC_CHANGES, TOPIC_TASKS
from tests.scenes import prepared
from tests.test_update_rules import TILE
from updater import asked
from updater.commit import OutboxRow, write_outbox
from updater.store import Store


def put(path, id_, type_=CHANGE_TYPE, topic=TOPIC_CHANGES):
    with Store.open(path) as store, store.transaction() as cursor:
        write_outbox(cursor, [OutboxRow(id_, type_, topic, "D032/x", "{}")], store.clock())


def test_stores_at_rest_are_emptied_again_and_again_and_held_only_meanwhile(tmp_path, small_scene):
    settings = prepared(tmp_path, small_scene)
    (path,) = settings.db
    put(path, "FIRST")
    put(path, "TASK", TASK_TYPE, TOPIC_TASKS)
    rounds = []

    class Between(RelayService):
        def _idle(self, seconds):
            """Between two rounds another process may open the store."""
            rounds.append(sorted(p.stem for p in (tmp_path / "outbox" / "changes").iterdir()))
            if len(rounds) == 3:
                self.stop()
            else:
                put(path, f"LATER-{len(rounds)}")

    service = Between(settings)
    service.run()
    assert rounds == [["FIRST"], ["FIRST", "LATER-1"], ["FIRST", "LATER-1", "LATER-2"]]
    assert service.published == 4
    assert not (tmp_path / "outbox" / "tasks").exists()  # they are for Kafka alone
    again = RelayService(settings, once=True)
    again.run()
    assert again.published == 0


def test_the_watch_says_how_much_was_asked_and_since_when(store, tmp_path):
    metrics = Metrics()
    settings = Settings(db=[store.path], http=HttpSettings(enabled=False))
    watch = Watch(
        metrics, settings, [store], [FolderChannel(tmp_path / "o")], InboxSource(tmp_path / "i")
    )
    arrival = asked.Arrival(
        event="urn:a#1",
        payload=b"\x00{}",
        headers={"ce_id": b"\xff1"},
        origin=Origin(source="kafka", topic="t", offset=3),
        sent=None,
        acquired=datetime(2024, 6, 1, tzinfo=UTC),
        footprint=TILE,
    )
    asked.note(store, arrival, None, arrival.origin)
    asked.note(store, arrival, None, arrival.origin)  # read again
    with store.transaction() as cursor:
        cursor.execute("UPDATE asked SET since = since - INTERVAL 3 HOUR")
    watch.begin()
    text = metrics.text().decode()
    assert "millesimed_asked_events 1.0" in text
    seconds = {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if "waiting_seconds" in line and line[0] != "#" and "{" not in line
    }
    assert 10_800 <= seconds["millesimed_asked_waiting_seconds"] < 10_900
    assert seconds["millesimed_source_waiting_seconds"] >= 10_800  # it has no effect yet
    (row,) = asked.held(store)
    assert row.arrival == arrival
    asked.forget(store, row.seq)
    watch.look()
    assert "millesimed_asked_waiting_seconds 0.0" in metrics.text().decode()
