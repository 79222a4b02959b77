"""Exports as jobs over real HTTP: asked for, watched, fetched, cancelled, kept, forgotten; what a
killed service leaves is finished by the next."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio

from daemon.config import ExportSettings, HttpSettings, Scope
from daemon.http import application
from daemon.jobs.jobs import MOST_ATTEMPTS, Exports
from daemon.jobs.records import Job, JobState, Shelf
from daemon.metrics import Metrics
from tests.exported import COMMUNE, WANTED, exported_store
from tests.map_store import building, made_store, patched
from tests.served import LOOPBACK, Api, Running, known, listening
from updater import export_plan

ADMIN = "token-admin"
TOKENS = {"admin": known(Scope.ADMIN, token=ADMIN)}
END = {"done", "failed", "cancelled", "expired"}
SLOW = {"product": "map", "millesime": 2024, "format": "gpkg"}
"""With squares of some metres it goes on for minutes."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = exported_store(tmp_path_factory.mktemp("jobs"))
    yield made
    made.close()


class Room:
    """The jobs of a service, its clock, and a client."""

    def __init__(self, jobs, shelf, metrics, call):
        self.jobs, self.shelf, self.metrics, self.call = jobs, shelf, metrics, call

    def ask(self, **request):
        answer = self.call("POST", "/exports", request)
        assert answer.status == 202, answer.body
        assert answer.headers["Location"] == answer.json["links"]["self"]
        return answer.json

    def look(self, job):
        return self.call("GET", f"/exports/{job['id']}").json

    def until(self, job, *states, seconds=60):
        """The job once it has one of some states, and every progress seen on the way."""
        seen, end = [], time.monotonic() + seconds
        while (now := self.look(job))["state"] not in (states or END):
            seen.append(now["progress"])
            assert time.monotonic() < end, now
            time.sleep(0.02)
        return now, [*seen, now["progress"]]

    def fetch(self, job, **headers):
        return self.call("GET", f"/exports/{job['id']}/file", **headers)

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


class Hands:
    """A clock that is set by hand."""

    def __init__(self):
        self.ahead = timedelta()

    def __call__(self):
        return datetime.now(UTC) + self.ahead


@contextmanager
def room(store, folder, *, start=True, clock=None, public_read=True, **settings):
    shelf, metrics = Shelf(folder), Metrics()
    given = {"spare_bytes": 0} | settings
    jobs = Exports(ExportSettings(**given), shelf, [store], metrics, clock or Hands())
    http = HttpSettings(tokens=TOKENS, public_read=public_read)
    app = application(Running(), [store], http, LOOPBACK, None, jobs)
    if start:
        jobs.start()
    try:
        with listening(app) as url:
            yield Room(jobs, shelf, metrics, Api(url, app.openapi()))
    finally:
        jobs.stop()


@pytest.fixture(scope="module")
def open_room(store, tmp_path_factory):
    with room(store, tmp_path_factory.mktemp("exports")) as made:
        yield made


def half_files(folder):
    return [p for p in folder.rglob("*") if p.name.startswith(".")]


PRODUCTS = [(product, "gpkg") for product in WANTED if product != "raster"]
PRODUCTS += [("map", "fgb"), ("differential", "geoparquet"), ("corrective", "shp")]
PRODUCTS += [("changelog", "shp"), ("raster", "cog"), ("raster", "geotiff")]


@pytest.mark.parametrize(("product", "format_"), PRODUCTS)
def test_a_file_is_asked_for_watched_and_fetched(open_room, tmp_path, product, format_):
    asked = open_room.ask(**WANTED[product], format=format_, territory=COMMUNE)
    assert asked["state"] == "queued" and asked["links"]["file"] is None
    done, seen = open_room.until(asked)
    assert done["state"] == "done" and done["error"] is None, done
    assert seen == sorted(seen) and seen[-1] == 1
    fetched = open_room.fetch(done)
    assert fetched.status == 200 and len(fetched.body) == done["bytes"]
    assert hashlib.sha256(fetched.body).hexdigest() == done["sha256"]
    assert fetched.headers["ETag"] == f'"{done["sha256"]}"'
    assert fetched.headers["Content-Disposition"] == f'attachment; filename="{done["file"]}"'
    assert re.match(rf"OCS-GE_2-0_\w*_[A-Z]+_LAMB93_D032_{COMMUNE}_", done["file"])
    path = tmp_path / done["file"]
    path.write_bytes(fetched.body)
    if product == "raster":
        with rasterio.open(path) as image:
            assert len(np.unique(image.read(1))) > 3 and image.colormap(1)
            assert image.width * image.height == done["rows"]
        return
    source = f"/vsizip/{path}" if format_ == "shp" else path
    if format_ == "geoparquet":
        frame = gpd.read_parquet(path)
    else:
        layer = pyogrio.list_layers(source)[0][0]
        frame = gpd.read_file(source, layer=layer)
    assert len(frame) == done["rows"] > 0 and frame.crs.to_epsg() == 2154
    assert half_files(open_room.shelf.folder) == []


def test_a_file_comes_in_parts_and_only_where_it_is_new(open_room):
    done, _ = open_room.until(open_room.ask(**WANTED["map"], format="gpkg"))
    whole = open_room.fetch(done)
    part = open_room.fetch(done, Range="bytes=100-299")
    assert part.status == 206 and part.body == whole.body[100:300]
    assert part.headers["Content-Range"] == f"bytes 100-299/{done['bytes']}"
    rest = open_room.fetch(done, Range=f"bytes={done['bytes'] - 7}-")
    assert rest.body == whole.body[-7:]
    etag = whole.headers["ETag"]
    assert open_room.fetch(done, Range="bytes=0-9", If_Range='"another"').status == 200
    assert open_room.fetch(done, Range="bytes=0-9", If_Range=etag).status == 206
    assert open_room.fetch(done, Range=f"bytes={done['bytes']}-").status == 416
    assert open_room.fetch(done, If_None_Match=etag).status == 304


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"product": "map", "format": "gpkg"}, "map takes millesime"),
        ({"product": "map", "millesime": 2024, "format": "cog"}, "raster is written as cog"),
        ({"product": "raster", "millesime": 2024, "format": "cog"}, "takes a resolution"),
        ({**WANTED["map"], "format": "gpkg", "resolution": 1}, "only raster"),
        ({**WANTED["raster"], "format": "cog", "resolution": 0.01}, "resolution"),
        ({**WANTED["differential"], "format": "gpkg", "before": 2025}, "before is the older"),
        ({**WANTED["map"], "format": "gpkg", "millesime": 2019}, "first millésime is 2021"),
        ({**WANTED["map"], "format": "gpkg", "crs": "EPSG:27572"}, "EPSG:2154, EPSG:4326"),
        ({**WANTED["map"], "format": "gpkg", "crs": "WGS84"}, "crs"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(open_room, wrong, said):
    answer = open_room.call("POST", "/exports", wrong)
    assert answer.status == 422 and said in answer.json["detail"]


def test_what_is_not_there_is_said(open_room):
    for more in ({"territory": "99999"}, {"departement": "D099"}):
        answer = open_room.call("POST", "/exports", {**WANTED["map"], "format": "gpkg", **more})
        assert answer.status == 404 and answer.json["detail"].endswith(".")
    for method, path in (("GET", ""), ("GET", "/file"), ("DELETE", "")):
        assert open_room.call(method, f"/exports/{'0' * 32}{path}").status == 404


def test_the_same_of_an_unchanged_map_is_one_file(tmp_path):
    with exported_store(tmp_path) as store, room(store, tmp_path / "exports") as here:
        first, _ = here.until(here.ask(**WANTED["map"], format="fgb"))
        again = here.ask(**WANTED["map"], format="fgb")
        assert again["id"] == first["id"] and again["state"] == "done"
        own = here.ask(**WANTED["map"], format="fgb", crs="EPSG:2154")
        assert own["id"] == first["id"] and own["state"] == "done"
        assert here.value("millesimed_exports_total", product="map", outcome="kept") == 2
        other, _ = here.until(here.ask(**WANTED["map"], format="fgb", crs="EPSG:4326"))
        assert other["id"] != first["id"] and "_EPSG4326_" in other["file"]
        patched(store, 9, [building(520, 520)], days=60)
        after, _ = here.until(here.ask(**WANTED["map"], format="fgb"))
        assert after["id"] != first["id"] and after["sha256"] != first["sha256"]
        assert here.look(first)["state"] == "done"  # what was promised is kept
        assert here.value("millesimed_exports_total", product="map", outcome="done") == 3
        assert here.value("millesimed_export_jobs", state="done") == 3
        kept = sum(job["bytes"] for job in (first, other, after))
        assert here.value("millesimed_export_bytes") == kept
        assert here.value("millesimed_export_written_bytes_total") == kept
        assert here.value("millesimed_export_seconds_count", product="map") == 3


def test_progress_follows_what_is_written_and_a_cancelled_job_leaves_nothing(
    store, tmp_path, monkeypatch
):
    monkeypatch.setattr(export_plan, "SQUARE_M", 15.0)
    with room(store, tmp_path) as here:
        running, _ = here.until(here.ask(**SLOW), "running")
        seen = []
        end = time.monotonic() + 60
        while len(set(seen)) < 4 and time.monotonic() < end:
            seen.append(here.look(running)["progress"])
            time.sleep(0.02)
        assert len(set(seen)) >= 4 and seen == sorted(seen) and 0 < seen[-1] < 1
        assert here.fetch(running).status == 409
        waiting = here.ask(**WANTED["map"], format="shp")
        assert here.look(waiting)["state"] == "queued"
        assert here.call("DELETE", f"/exports/{waiting['id']}").json["state"] == "cancelled"
        assert here.call("DELETE", f"/exports/{running['id']}").status == 200
        gone, _ = here.until(running)
        assert gone["state"] == "cancelled" and half_files(tmp_path) == []
        assert here.fetch(gone).status == 409
        assert here.call("DELETE", f"/exports/{gone['id']}").status == 409
        assert not (tmp_path / gone["id"]).exists()


def test_a_full_queue_says_when_to_come_again(store, tmp_path):
    with room(store, tmp_path, start=False, queue=2) as here:
        for format_ in ("gpkg", "fgb"):
            here.ask(**WANTED["map"], format=format_)
        answer = here.call("POST", "/exports", {**WANTED["map"], "format": "shp"})
        assert answer.status == 503 and int(answer.headers["Retry-After"]) > 0
        assert here.value("millesimed_export_jobs", state="queued") == 2


def test_files_go_when_they_are_old_or_too_many(store, tmp_path):
    clock = Hands()
    with room(store, tmp_path, clock=clock, keep_days=2) as here:
        old, _ = here.until(here.ask(**WANTED["map"], format="gpkg"))
        clock.ahead = timedelta(days=1)
        young, _ = here.until(here.ask(**WANTED["map"], format="fgb"))
        clock.ahead = timedelta(days=2, seconds=5)
        here.jobs.sweep()
        assert here.look(old)["state"] == "expired" and here.look(young)["state"] == "done"
        assert here.fetch(old).status == 410 and not (tmp_path / old["id"]).exists()
        third, _ = here.until(here.ask(**WANTED["changelog"], format="fgb"))
        here.jobs._settings.keep_bytes = third["bytes"] + 10
        here.jobs.sweep()
        assert here.look(young)["state"] == "expired" and here.look(third)["state"] == "done"
        clock.ahead = timedelta(days=9)
        here.jobs.sweep()
        assert here.call("GET", f"/exports/{old['id']}").status == 404
        assert list(tmp_path.glob("*.json")) == []


def test_a_file_beyond_the_bounds_fails_with_a_sentence(store, tmp_path):
    with room(store, tmp_path / "a", keep_bytes=1000) as here:
        failed, _ = here.until(here.ask(**WANTED["map"], format="gpkg"))
        assert failed["state"] == "failed" and "keep_bytes" in failed["error"]
    with room(store, tmp_path / "b", spare_bytes=10**18) as here:
        failed, _ = here.until(here.ask(**WANTED["map"], format="gpkg"))
        assert failed["state"] == "failed" and "make room" in failed["error"]
        assert here.value("millesimed_exports_total", product="map", outcome="failed") == 1
    for folder in ("a", "b"):
        assert [p.suffix for p in (tmp_path / folder).rglob("*")] == [".json"]


def test_a_process_that_dies_is_said(store, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with room(store, tmp_path) as here:
        failed, _ = here.until(here.ask(**WANTED["map"], format="gpkg"))
        assert failed["state"] == "failed" and "ended by itself" in failed["error"]


def test_only_an_admin_lists_and_a_closed_service_asks_for_tokens(store, tmp_path):
    with room(store, tmp_path, public_read=False) as here:
        asked = {**WANTED["map"], "format": "gpkg"}
        assert here.call("POST", "/exports", asked).status == 401
        made = here.call("POST", "/exports", asked, token=ADMIN).json
        assert here.call("GET", f"/exports/{made['id']}").status == 401
        assert here.call("GET", "/exports").status == 401
        listed = here.call("GET", "/exports", token=ADMIN).json["exports"]
        assert [job["id"] for job in listed] == [made["id"]]


def test_a_restart_takes_up_what_was_left(store, tmp_path, monkeypatch):
    with room(store, tmp_path) as here:
        done, _ = here.until(here.ask(**WANTED["map"], format="fgb"))
        broken, _ = here.until(here.ask(**WANTED["map"], format="shp"))
        monkeypatch.setattr(export_plan, "SQUARE_M", 15.0)
        running, _ = here.until(here.ask(**SLOW), "running")
        waiting = here.ask(**WANTED["corrective"], format="gpkg")
    monkeypatch.undo()
    (tmp_path / broken["id"] / broken["file"]).write_bytes(b"cut")
    (tmp_path / f".{'a' * 32}.part").mkdir()
    (tmp_path / ("b" * 32)).mkdir()
    worn = Job.model_validate_json((tmp_path / f"{running['id']}.json").read_bytes())
    assert worn.state is JobState.QUEUED  # a stop gives it back
    poison = worn.model_copy(
        update={"id": "c" * 32, "state": JobState.RUNNING, "attempts": MOST_ATTEMPTS}
    )
    Shelf(tmp_path).save(poison)
    (tmp_path / f"{'d' * 32}.json").write_text("{")
    with room(store, tmp_path) as here:
        for job in (running, waiting):
            ended, _ = here.until(job)
            assert ended["state"] == "done"
        assert here.look(done)["state"] == "done" and here.fetch(done).status == 200
        assert here.look(broken)["state"] == "expired"
        assert here.look({"id": "c" * 32})["state"] == "failed"
        assert half_files(tmp_path) == [] and not (tmp_path / ("b" * 32)).exists()


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_service(folder):
    """`millesimed run` as a process of its own, and a client."""
    port = free_port()
    command = [sys.executable, "-m", "daemon.cli", "run", "--device", "cpu"]
    command += ["--db", str(folder / "D032.duckdb"), "--inbox", str(folder / "inbox")]
    environment = os.environ | {
        "MILLESIMED_HTTP__PORT": str(port),
        "MILLESIMED_EXPORTS__SPARE_BYTES": "0",
    }
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    call = Api(f"http://127.0.0.1:{port}", {"paths": {}, "components": {}})
    call.hold = lambda *_: None
    try:
        end = time.monotonic() + 60
        while True:
            try:
                if call("GET", "/readyz").status == 200:
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        yield process, call
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_service_killed_in_the_middle_of_a_file_finishes_it_after_all(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", side=8000.0)
    made.close()
    asked = {"product": "raster", "millesime": 2021, "resolution": 1, "format": "geotiff"}
    with running_service(tmp_path) as (process, call):
        job = call("POST", "/exports", asked).json["id"]
        end = time.monotonic() + 60
        while call("GET", f"/exports/{job}").json["progress"] == 0:
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    exports = tmp_path / "exports"
    assert json.loads((exports / f"{job}.json").read_bytes())["state"] == "running"
    assert half_files(exports) and not (exports / job).exists()
    with running_service(tmp_path) as (_, call):
        end = time.monotonic() + 120
        while (now := call("GET", f"/exports/{job}").json)["state"] != "done":
            assert call("GET", f"/exports/{job}/file").status == 409, now
            assert now["state"] in {"queued", "running"} and time.monotonic() < end, now
            time.sleep(0.1)
        body = call("GET", f"/exports/{job}/file").body
        assert hashlib.sha256(body).hexdigest() == now["sha256"]
        assert half_files(exports) == []
    with rasterio.open(exports / job / now["file"]) as image:
        assert image.shape == (8_000, 8_000)
        corner = image.read(1, window=((0, 2000), (0, 2000)))
    assert (corner > 0).all()


def test_answers_do_not_wait_for_a_file(store, tmp_path, monkeypatch):
    monkeypatch.setattr(export_plan, "SQUARE_M", 15.0)
    with room(store, tmp_path) as here:
        running, _ = here.until(here.ask(**SLOW), "running")
        slowest = 0.0
        for _ in range(30):
            began = time.perf_counter()
            assert here.call("GET", "/healthz").status == 200
            slowest = max(slowest, time.perf_counter() - began)
        assert here.look(running)["state"] == "running"
    assert slowest < 2.0  # on a machine with other work; a lock held by GDAL would be a square long


def test_one_after_the_other_in_the_order_they_came(store, tmp_path):
    with room(store, tmp_path, start=False) as here:
        jobs = [here.ask(**WANTED["map"], format=f) for f in ("gpkg", "fgb", "geoparquet")]
        here.jobs.start()
        ended = [here.until(job)[0] for job in jobs]
        assert all(a["ended"] <= b["started"] for a, b in pairwise(ended))
        assert all(job["state"] == "done" for job in ended)
