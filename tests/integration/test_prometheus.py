"""A real Prometheus scrapes a real service through an event: every rule and every panel answers."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import torch
import yaml

from daemon.acquire.settings import FolderSource
from daemon.catalogue import CATALOGUE
from daemon.config import HttpSettings
from daemon.service import Service
from tests.integration.broker import free_port
from tests.scenes import announced, prepared
from tests.test_deploy import BOARDS, NAME, PROMETHEUS, RECORD, panels, rules

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)

SCRAPE_SECONDS = 1
READY_SECONDS = 60.0
EVENT_SECONDS = 150.0
VARIABLES = {"$departement": ".*", "$__rate_interval": "5m", "$__range": "6h"}
"""What Grafana puts in where nothing is chosen."""
WITHOUT_CUDA = {family.name for family in CATALOGUE.values() if family.only}


class Prometheus:
    """Questions to a running Prometheus."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def ready(self):
        """It listens, and answers 503 in plain text, before it can be asked anything."""
        with urllib.request.urlopen(f"{self.url}/-/ready", timeout=10) as answer:
            return answer.status == 200

    def get(self, path, **query):
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {json.load(error)['error']}") from None

    def ask(self, expr):
        """What an instant query gives: label sets and values."""
        found = self.get("/api/v1/query", query=expr)
        assert found["resultType"] == "vector", expr
        return [(sample["metric"], float(sample["value"][1])) for sample in found["result"]]


@contextmanager
def prometheus(folder, target):
    """The project's own configuration and rules, asked more often."""
    settings = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    often = f"{SCRAPE_SECONDS}s"
    settings["global"] = {"scrape_interval": often, "evaluation_interval": often}
    settings["rule_files"] = [str(PROMETHEUS / name) for name in settings["rule_files"]]
    (job,) = settings["scrape_configs"]
    job["static_configs"] = [{"targets": [target]}]
    del job["dns_sd_configs"]  # names of a network of containers
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    port = free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'series'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            made = Prometheus(port)
            wait(made.ready, READY_SECONDS, "Prometheus never became ready")
            yield made
        finally:
            process.terminate()
            process.wait(timeout=20)


def wait(condition, seconds, why):
    until = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except OSError:  # not listening, or not ready yet
            pass
        assert time.monotonic() < until, why
        time.sleep(0.25)


def export(url):
    """One export, to its end."""
    wish = {"product": "map", "millesime": 2024, "format": "gpkg"}
    job = httpx.post(f"{url}/exports", json=wish).raise_for_status().json()
    wait(
        lambda: httpx.get(f"{url}/exports/{job['id']}").json()["state"] == "done",
        EVENT_SECONDS,
        "the export never ended",
    )


@pytest.fixture(scope="module")
def asked(tmp_path_factory, small_scene):
    """Prometheus, after it has watched a service take in one real event."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    made = prepared(folder, small_scene)
    http = HttpSettings(port=port)
    (folder / "deliveries").mkdir()
    source = FolderSource(
        name="ign", kind="folder", folder=folder / "deliveries", every_seconds=SCRAPE_SECONDS
    )
    settings = made.model_copy(
        update={"http": http, "checkpoint_seconds": 2.0, "acquire": [source]}
    )
    with ExitStack() as stack:
        often = stack.enter_context(pytest.MonkeyPatch.context())
        often.setattr("daemon.service.FRESHNESS_SECONDS", SCRAPE_SECONDS)
        service = Service(settings)
        thread = threading.Thread(target=service.run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(service.stop)
        found = stack.enter_context(prometheus(folder, f"127.0.0.1:{port}"))
        found.service = service
        wait(
            lambda: found.ask('millesimed_scenes_total{detector="map-guided"}'),
            READY_SECONDS,
            "Prometheus never scraped the service",
        )
        announced(settings.inbox, small_scene.after)
        wait(
            # the watch has looked since the commit, and the relay has published
            lambda: (
                found.ask("millesimed_millesime_covered_ratio > 0")
                and found.ask('millesimed_event_to_alert_seconds_count{channel="folder"} > 0')
                and found.ask("max(millesimed_source_lag) == 0")
            ),
            EVENT_SECONDS,
            "the event never had its effect",
        )
        export(f"http://127.0.0.1:{port}")
        time.sleep(3 * SCRAPE_SECONDS)  # rates need two samples, rules one more evaluation
        yield found


def replaced(expr):
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"a variable nobody fills in: {expr}"
    return expr


def metrics_of(expr):
    """Names a query reads, records first."""
    records = RECORD.findall(expr)
    return records, NAME.findall(RECORD.sub("", expr))


def test_every_rule_is_loaded_and_evaluates(asked):
    loaded = [r for g in asked.get("/api/v1/rules")["groups"] for r in g["rules"]]
    assert len(loaded) == len(rules())
    for rule in loaded:
        assert (rule["health"], rule.get("lastError")) == ("ok", None), rule["name"]


@pytest.mark.parametrize("rule", rules(), ids=lambda r: r.get("record") or r["alert"])
def test_a_rule_reads_what_is_there(asked, rule):
    result = asked.ask(rule["expr"])
    records, names = metrics_of(rule["expr"])
    for name in [*records, *names, *([rule["record"]] if "record" in rule else [])]:
        assert asked.ask(name), name
    assert result if "record" in rule else (not result or rule["alert"] in FIRES)


FIRES = {"MillesimedDiskFilling"}
"""What may fire on the machine that runs the tests: its disk may be small."""
QUERIES = [
    pytest.param(target["expr"], id=f"{board.stem}-{panel['title']}-{target['refId']}")
    for board in BOARDS
    for panel in panels(board)
    for target in panel["targets"]
]


@pytest.mark.parametrize("expr", QUERIES)
def test_every_panel_shows_something(asked, expr):
    found = asked.ask(replaced(expr))
    if not torch.cuda.is_available() and WITHOUT_CUDA & set(NAME.findall(expr)):
        assert not found
    else:  # 0/0 is no figure
        assert any(not math.isnan(value) for _, value in found)


def test_the_figures_are_those_of_the_event(asked):
    def one(expr):
        ((_, value),) = asked.ask(expr)
        return value

    assert one('millesimed_events_total{outcome="processed"}') == 1
    for stage in ("validate", "detect", "plan", "commit"):
        assert one(f'millesimed_stage_finished_total{{stage="{stage}"}}') == 1
    assert one("max(millesimed_source_lag)") == 0
    assert one("max(millesimed_outbox_depth)") == 0
    found = asked.ask("stage:millesimed_acquisition_age_seconds:min")
    ages = {labels["stage"]: value for labels, value in found}
    assert len(ages) == 6 and max(ages.values()) - min(ages.values()) < 1
    moved = one("sum(millesimed_transition_area_square_meters_total)")
    assert 0 < moved <= one("sum(millesimed_changed_area_square_meters_total)")
    increase = "increase(millesimed_transition_area_square_meters_total[5m])"
    assert asked.ask("millesimed_transition_polygons_total > 0") and asked.ask(increase)
    assert one('millesimed_region_confidence_ratio_count{detector="map-guided"}') > 0
    assert one("millesimed_registration_residual_pixels_count") == 1
    latency = "millesimed_event_to_alert_seconds_sum / millesimed_event_to_alert_seconds_count > 0"
    assert one(latency) < EVENT_SECONDS
    (place,) = (m for m, _ in asked.ask("millesimed_departement_info"))
    assert 43 < float(place["latitude"]) < 44.5 and -1 < float(place["longitude"]) < 1.5  # the Gers


def test_the_series_are_few_and_their_labels_those_of_the_catalogue(asked):
    ((_, count),) = asked.ask('count({__name__=~"millesimed_.+"})')
    assert count < 1_000
    known = {label for family in CATALOGUE.values() for label in family.labels}
    own = {"__name__", "le", "job", "instance", "alertname", "alertstate", "severity"}
    assert set(asked.get("/api/v1/labels")) <= known | own


def test_the_service_is_missed_once_it_is_gone(asked):
    """Last of all, for it ends the service: the rule that pages waits five minutes more."""
    pending = 'ALERTS{alertname="MillesimedDown",alertstate="pending"}'
    assert not asked.ask(pending)
    asked.service.stop()
    wait(lambda: asked.ask(pending), READY_SECONDS, "nobody missed the service")
