"""Looks at sources as a whole: debts, cursors, crashes, the service, the command line, Kafka."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from daemon.acquire.round import GIVE_UP_AFTER, LONGEST_AGAIN, Acquirer
from daemon.acquire.settings import FolderSource, S3Source, secret, secret_name
from daemon.acquire.sources import acquirer, announcer, state_file
from daemon.acquire.state import Busy, StateFile
from daemon.acquire.watcher import AcquireError, Page, Ref
from daemon.cli import app
from daemon.config import KafkaSettings, Settings, load
from daemon.service import Service
from schemas.errors import UsageError
from tests.acquiring import inbox, look, settings
from tests.integration import broker
from tests.ortho import delivery, md5, tile_name
from tests.scenes import prepared
from tests.sites import Held, Reply, site
from tests.test_acquire_s3 import BUCKET, DATED, image

NOW = datetime(2024, 7, 1, 6, tzinfo=UTC)


@pytest.fixture
def ign(tmp_path):
    folder = tmp_path / "deliveries"
    folder.mkdir()
    return FolderSource(name="ign", kind="folder", folder=folder, quiet_seconds=0, every_seconds=1)


def put(folder, name="livraison"):
    """A delivery that is complete at once."""
    made = delivery(folder / name)
    (made / f"{tile_name()}.md5").write_text(md5(made / tile_name()))
    return made


class Scripted:
    """A watcher whose one thing cannot be had."""

    def __init__(self):
        self.tries = 0

    def poll(self, cursor):
        if not cursor:
            yield Page([Ref("k", "the thing", {"n": 1})], {"done": True})

    def fetch(self, ref):
        self.tries += 1
        raise AcquireError(f"{ref.label} is not there.")

    def close(self):
        pass


def test_debts_are_tried_with_growing_pauses_and_given_up(tmp_path, ign):
    now, scripted = [NOW], Scripted()
    file = StateFile(tmp_path, "ign", {})
    one = Acquirer(ign, scripted, file, announce=print, now=lambda: now[0])
    pauses, tries = [], 0
    while not one.once().given_up:
        (debt,) = file.load().owed.values() if file.load().owed else (None,)
        assert debt is not None and debt.data == {"n": 1} and debt.why == "the thing is not there."
        if scripted.tries > tries:
            tries = scripted.tries
            pauses.append(datetime.fromisoformat(debt.next) - now[0])
        now[0] += timedelta(hours=3)
        assert now[0] < NOW + 2 * GIVE_UP_AFTER
    assert now[0] >= NOW + GIVE_UP_AFTER
    assert pauses[0] <= timedelta(minutes=5) < pauses[5] and max(pauses) <= LONGEST_AGAIN
    assert 20 < scripted.tries < 70
    assert one.once(retry_all=True).failed == 1
    assert list(file.load().given_up) == ["k"] and not file.load().owed


def test_what_breaks_in_an_unforeseen_way_is_a_debt_too(tmp_path, ign):
    scripted = Scripted()
    scripted.fetch = lambda ref: 1 / 0
    one = Acquirer(ign, scripted, StateFile(tmp_path, "x", {}), announce=print, now=lambda: NOW)
    tally = one.once()
    assert (tally.owed, tally.error) == (1, None)


def test_a_cursor_belongs_to_its_place(tmp_path, ign):
    put(ign.folder)
    assert len(look(tmp_path, ign).events) == 1
    assert look(tmp_path, ign.model_copy(update={"every_seconds": 9.0})).events == []
    other = tmp_path / "elsewhere"
    shutil.copytree(ign.folder, other)
    moved = look(tmp_path, ign.model_copy(update={"folder": other}))
    assert moved.events == list(inbox(tmp_path))  # the same image is the same event


def test_a_damaged_state_says_what_to_do(tmp_path, ign):
    path = state_file(settings(tmp_path, ign), ign).path
    path.parent.mkdir(parents=True)
    for body in (b"{", b"[]", b'{"owed": {"k": {"odd": 1}}, "given_up": {}}'):
        path.write_bytes(body)
        with pytest.raises(AcquireError, match="remove it"):
            look(tmp_path, ign)


def test_one_look_at_a_time(tmp_path, ign):
    with state_file(settings(tmp_path, ign), ign).held(), pytest.raises(Busy):
        look(tmp_path, ign)
    assert look(tmp_path, ign).error is None


def test_an_event_that_cannot_be_written_moves_no_cursor(tmp_path, ign):
    put(ign.folder)
    where = Settings(
        acquire=[ign],
        acquire_folder=tmp_path / "acquired",
        kafka=KafkaSettings(servers="127.0.0.1:1", options={"log_level": 0}),
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("daemon.announce.DELIVERY_SECONDS", 0.5)
        with closing(acquirer(where, ign, ground=lambda _: None)) as one:
            tally = one.once()
    assert "Kafka" in tally.error and tally.events == []
    assert len(look(tmp_path, ign).events) == 1


@pytest.mark.kafka
@pytest.mark.skipif(not broker.available(), reason="noida-db is not installed")
def test_events_go_to_the_topic_where_the_service_reads_one(tmp_path, ign):
    from confluent_kafka import Consumer

    from schemas.envelope import parse_acquisition

    put(ign.folder)
    with broker.broker(tmp_path) as server:
        kafka = KafkaSettings(servers=server)
        where = Settings(acquire=[ign], acquire_folder=tmp_path / "acquired", kafka=kafka)
        assert announcer(where) is not None
        with closing(acquirer(where, ign, ground=lambda _: None)) as one:
            (event,) = one.once().events
        reader = Consumer(
            {"bootstrap.servers": server, "group.id": "t", "auto.offset.reset": "earliest"}
        )
        reader.subscribe([kafka.acquisitions])
        until, record = time.monotonic() + 30, None
        while record is None and time.monotonic() < until:
            record = reader.poll(0.5)
        headers = dict(record.headers())
        reader.close()
    assert parse_acquisition(record.value(), headers).id == event


def configured(tmp_path, text):
    path = tmp_path / "millesimed.toml"
    path.write_text(text)
    return path


def test_a_process_killed_in_a_download_goes_on_and_announces_once(tmp_path):
    """A real process, a real SIGKILL, a real server that is slow the first time."""
    body = image() + bytes(400_000)
    listing = (
        "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>20240611T.tif</Key>"
        "<LastModified>2024-06-11T12:00:00Z</LastModified>"
        f"<ETag>&quot;e&quot;</ETag><Size>{len(body)}</Size></Contents></ListBucketResult>"
    )
    held, waiting = Held(body), threading.Event()

    def slow(request):
        if "Range" not in request.headers and not waiting.is_set():
            waiting.set()
            return Reply(200, body[:300_000], {"ETag": held.etag, "Content-Length": str(len(body))})
        return held(request)

    with site() as found:
        found.on(f"/{BUCKET}", Reply(200, listing.encode()))
        found.on(f"/{BUCKET}/20240611T.tif", slow)
        config = configured(
            tmp_path,
            f'''inbox = "inbox"
acquire_folder = "acquired"
acquire_networks = ["127.0.0.0/8"]
[[acquire]]
name = "store"
kind = "s3"
url = "{found.url}"
bucket = "{BUCKET}"
sensor = "pva"
dated = "{DATED.replace(chr(92), chr(92) * 2)}"
''',
        )
        command = [sys.executable, "-m", "daemon.cli", "acquire", "poll", "store", "--once"]
        command += ["--json", "--config", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert waiting.wait(60)
        until = time.monotonic() + 20
        while not any(p.stat().st_size >= 300_000 for p in tmp_path.rglob(".*.part")):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(20)
        assert inbox(tmp_path) == {}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
    assert row["announced"] == 1 and set(row["events"]) == set(inbox(tmp_path))
    assert found.calls[-1].headers["Range"] == "bytes=300000-"


def test_the_command_line_says_what_came_and_what_is_owed(tmp_path, ign):
    config = configured(
        tmp_path,
        'inbox = "inbox"\n[[acquire]]\nname = "ign"\nkind = "folder"\nfolder = "deliveries"\n'
        'quiet_seconds = 0\nacquire_folder = "x"\n',
    )
    run = CliRunner()
    with pytest.raises(UsageError, match=r"acquire\.0"):
        load(config)
    config.write_text(config.read_text().replace('acquire_folder = "x"\n', ""))
    put(ign.folder)
    done = run.invoke(app, ["acquire", "poll", "--once", "--json", "--config", str(config)])
    (row,) = json.loads(done.stdout)
    assert (done.exit_code, row["announced"], row["error"]) == (0, 1, None)
    bad = put(ign.folder, "undated")
    (bad / "graphe.shp").unlink()
    done = run.invoke(app, ["acquire", "poll", "ign", "--once", "--config", str(config)])
    assert done.exit_code == 0
    listed = run.invoke(app, ["acquire", "list", "--json", "--config", str(config)])
    (row,) = json.loads(listed.stdout)
    assert row["announced"] == 1 and row["last_success"]
    assert row["owed"][0]["what"] == "undated" and "graph" in row["owed"][0]["why"]
    assert "undated" in run.invoke(app, ["acquire", "list", "--config", str(config)]).stdout
    shutil.rmtree(ign.folder)
    done = run.invoke(app, ["acquire", "poll", "--once", "--config", str(config)])
    assert done.exit_code == 1
    with pytest.raises(UsageError, match="ign"):
        run.invoke(
            app,
            ["acquire", "poll", "other", "--once", "--config", str(config)],
            catch_exceptions=False,
        )


def test_a_running_service_takes_in_what_is_delivered(tmp_path, small_scene, ign):
    """From a tile in a folder to an event the pipeline has handled, with its metrics."""
    made = prepared(tmp_path, small_scene)
    service = Service(
        made.model_copy(update={"acquire": [ign], "acquire_folder": tmp_path / "acquired"})
    )
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        put(ign.folder)
        until = time.monotonic() + 60
        while not service.received and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        service.stop()
        thread.join()
    assert service.received == 1

    def value(name):
        labels = {"kind": "folder", "source": "ign"}
        return service.metrics.registry.get_sample_value(name, labels)

    assert value("millesimed_acquired_images_total") == 1
    assert value("millesimed_acquire_failures_total") == 0
    assert value("millesimed_acquired_bytes_total") == 0
    assert value("millesimed_acquire_owed") == 0
    assert time.time() - value("millesimed_acquire_success_timestamp_seconds") < 60


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('kind = "ftp"', "ftp"),
        (
            'kind = "s3"\nurl = "https://e.org"\nbucket = "abc"\nsecret = "x"',
            "MILLESIMED_ACQUIRE_A",
        ),
        ('kind = "s3"\nurl = "https://user:pw@e.org"\nbucket = "abc"', "pattern"),
        ('kind = "s3"\nurl = "https://e.org"\nbucket = "abc"\npattern = "("', "regular expression"),
        ('kind = "s3"\nurl = "https://e.org"\nbucket = "abc"\ndated = "(\\\\d)"', "year"),
        ('kind = "geoplateforme"\nzones = []', "zones"),
        (
            'kind = "folder"\nfolder = "d"\n[[acquire]]\nname = "a"\nkind = "folder"\nfolder = "e"',
            "a",
        ),
    ],
)
def test_wrong_tables_are_wrong_use(tmp_path, table, said):
    config = configured(tmp_path, f'[[acquire]]\nname = "a"\n{table}\n')
    with pytest.raises(UsageError, match=said):
        load(config)


def test_secrets_come_from_the_environment_and_show_nowhere(monkeypatch):
    monkeypatch.setenv("MILLESIMED_ACQUIRE_MY_STORE_SECRET_KEY", "hush")
    assert secret_name("my-store", "secret_key") == "MILLESIMED_ACQUIRE_MY_STORE_SECRET_KEY"
    found = secret("my-store", "secret_key")
    assert found is not None and "hush" not in repr(found)
    assert secret("my-store", "access_key") is None
    assert load().acquire == []


def test_paths_are_seen_from_the_file_and_every_key_says_what_it_is(tmp_path):
    from typing import get_args

    from daemon.acquire.settings import AcquireSettings

    text = '[[acquire]]\nname = "a"\nkind = "folder"\nfolder = "d"\n'
    found = load(configured(tmp_path, f'acquire_folder = "images"\n{text}'))
    assert found.acquire[0].folder == tmp_path / "d"
    assert found.acquired_folder() == tmp_path / "images"
    for model in get_args(get_args(AcquireSettings)[0]):
        for name, field in model.model_fields.items():
            assert field.description or name == "kind", name
    assert S3Source(name="x", kind="s3", url="https://e.org", bucket="abc").sensor is None
