"""The catalogue: names that keep the conventions, values that are all there are, its document."""

import importlib
import pkgutil
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_type_hints

import pytest
from prometheus_client import Counter, Gauge, Histogram

import detectors
import schemas
import updater
from daemon import assets, exchange, families, freight, series, suspects
from daemon.catalogue import CATALOGUE
from daemon.families import Kind
from daemon.metrics import REMEMBERED, STAGES, Metrics
from daemon.metrics_doc import document
from daemon.pipeline import Outcome
from detectors.registry import DETECTORS
from schemas.errors import MillesimedError
from schemas.nomenclature import CS_LEAVES
from schemas.task import CONTEXT_MISSING

ROOT = Path(__file__).parent.parent
AT = datetime(2024, 6, 18, tzinfo=UTC)
TYPES = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge, Kind.HISTOGRAM: Histogram}
WORDS = {"seconds": "seconds", "bytes": "bytes", "square metres": "square_meters"}
NOT_OF_EVENTS = {"usage", "store", "store-locked", "import", "not-found", "training", "no-pairs"}
NOT_OF_EVENTS |= {"detection", "export", "no-room", "settled"}
"""Reasons of errors that commands raise, that stop the service, or that are only derived from."""


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize("family", CATALOGUE.values(), ids=lambda f: f.name)
def test_every_metric_keeps_the_conventions(family):
    assert re.fullmatch(r"millesimed_[a-z0-9_]+", family.name)
    assert (family.kind is Kind.COUNTER) == family.name.endswith("_total")
    assert family.help.endswith(".") and family.unit
    assert (family.kind is Kind.HISTOGRAM) == bool(family.buckets)
    assert list(family.buckets) == sorted(set(family.buckets))
    stem = family.name.removesuffix("_total")
    for unit, words in (
        ("seconds", "seconds"),
        ("bytes", "bytes"),
        ("square metres", "square_meters"),
    ):
        assert not family.unit.startswith(unit) or stem.endswith(words)
    assert not re.search(r"(milli|kilo|mega|minutes|hours|days|percent)", stem.split("_", 1)[1])


def test_names_are_taken_once_and_every_attribute_has_its_type():
    names = [family.name for family in CATALOGUE.values()]
    assert len(set(names)) == len(names)
    hints = {k: v for k, v in get_type_hints(Metrics).items() if v in TYPES.values()}
    assert hints == {k: TYPES[f.kind] for k, f in CATALOGUE.items() if not f.only}


def test_what_is_exported_is_what_the_catalogue_says_and_the_process_itself():
    metrics = Metrics()
    metrics.departement("D032")
    exported = {family.name: family for family in metrics.registry.collect()}
    listed = {f.name.removesuffix("_total"): f for f in CATALOGUE.values() if not f.only}
    assert {n for n in exported if not n.startswith("process_")} == set(listed)
    for name, family in listed.items():
        assert exported[name].type == family.kind.value
        assert exported[name].documentation == family.help
    assert value(metrics, "process_resident_memory_bytes") > 1e6


def test_the_document_is_the_catalogue():
    assert (ROOT / "docs" / "metrics.md").read_text() == document()


def subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


def test_every_reason_a_dead_letter_can_have_begins_at_zero():
    """An error added to a room an event goes through has its reason in one list or the other."""
    for room in (schemas, detectors, updater):
        for module in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
            importlib.import_module(module.name)
    own = tuple(module.__name__ for module in (assets, exchange, freight, suspects))
    rooms = ("schemas.", "detectors.", "updater.", *own)
    found = {c.reason for c in subclasses(MillesimedError) if c.__module__.startswith(rooms)}
    assert found - NOT_OF_EVENTS | {"internal", CONTEXT_MISSING} == set(
        families.DEAD_LETTER_REASONS
    )


def test_the_values_known_beforehand_are_those_there_are():
    assert set(families.OUTCOMES) == {outcome.value for outcome in Outcome}
    assert set(families.DETECTORS) == {*DETECTORS, series.NAME.partition("/")[0]}
    said = re.compile(r'(?:RegionIgnored\(|ignored\[)"([a-z-]+)"')
    told = {m for path in (ROOT / "updater").glob("*.py") for m in said.findall(path.read_text())}
    assert told == set(families.IGNORED_REASONS)


def test_known_series_begin_at_zero_and_a_departements_with_its_name():
    metrics = Metrics()
    assert value(metrics, "millesimed_dead_letters_total", reason="wrong-crs") == 0
    assert value(metrics, "millesimed_alerts_total", kind="other", state="first") == 0
    labels = {"departement": "D032", "kind": "artificialisation"}
    assert value(metrics, "millesimed_changed_area_square_meters_total", **labels) is None
    metrics.departement("D032")
    assert value(metrics, "millesimed_changed_area_square_meters_total", **labels) == 0
    assert value(metrics, "millesimed_checkpoint_seconds_count", departement="D032") == 0
    # sizes and dates are absent until somebody knows them
    assert value(metrics, "millesimed_store_bytes", departement="D032") is None
    assert value(metrics, "millesimed_map_timestamp_seconds", departement="D032") is None
    assert value(metrics, "millesimed_flagged_ratio", detector="cva") is None
    newest = "millesimed_newest_acquisition_timestamp_seconds"
    assert value(metrics, newest, stage="validate") is None


def test_the_number_of_series_has_a_bound():
    """What a year of the busiest service may export: 14 covers, a hundred départements."""
    count = 0
    for family in CATALOGUE.values():
        ways = 1
        for label, values in family.labels.items():
            bound = {"departement": 101, "cs_before": 15, "cs_after": 15, "partition": 64}
            bound |= {"millesime": 5, "latitude": 1, "longitude": 1, "gpu": 8}
            ways *= bound.get(label, 8) if isinstance(values, str) else len(values)
        count += ways * (len(family.buckets) + 3 if family.buckets else 1)
    assert len(CS_LEAVES) == 14 and count < 5_000


def test_a_stage_counts_what_goes_in_what_comes_out_and_what_fails():
    metrics = Metrics()
    with metrics.stage("plan", acquired=AT):
        assert value(metrics, "millesimed_stage_in_progress", stage="plan") == 1
    with pytest.raises(ValueError), metrics.stage("plan", acquired=AT + timedelta(days=9)):
        raise ValueError
    figures = {
        name: value(metrics, f"millesimed_stage_{name}", stage="plan")
        for name in ("started_total", "finished_total", "failures_total", "in_progress")
    }
    assert figures == {
        "started_total": 2,
        "finished_total": 1,
        "failures_total": 1,
        "in_progress": 0,
    }
    assert value(metrics, "millesimed_stage_seconds_count", stage="plan") == 2
    newest = "millesimed_newest_acquisition_timestamp_seconds"
    assert value(metrics, newest, stage="plan") == AT.timestamp()
    for stage in STAGES:
        assert value(metrics, "millesimed_stage_in_progress", stage=stage) == 0


def test_an_older_image_moves_no_date_back():
    metrics = Metrics()
    for days in (0, 5, -30):
        metrics.acquired("commit", AT + timedelta(days=days))
        metrics.shown("D032", AT + timedelta(days=days))
    newest = (AT + timedelta(days=5)).timestamp()
    name = "millesimed_newest_acquisition_timestamp_seconds"
    assert value(metrics, name, stage="commit") == newest
    assert value(metrics, "millesimed_map_timestamp_seconds", departement="D032") == newest


def test_the_way_from_event_to_alert_is_measured_where_the_arrival_is_known():
    metrics = Metrics()
    metrics.expect(["AL1.1", "AL2.1"], AT)
    for message in ("AL1.1", "AL2.1", "AL3.1"):
        metrics.told("folder", message, AT + timedelta(seconds=40))
    metrics.told("kafka", "AL1.1", AT - timedelta(seconds=3))  # the sender's clock is ahead
    name = "millesimed_event_to_alert_seconds"
    assert value(metrics, f"{name}_count", channel="folder") == 2
    assert value(metrics, f"{name}_sum", channel="folder") == 80
    assert value(metrics, f"{name}_sum", channel="kafka") == 0
    metrics.expect([f"AL{n}" for n in range(REMEMBERED)], AT)
    metrics.told("folder", "AL1.1", AT)  # forgotten: memory has a bound
    assert value(metrics, f"{name}_count", channel="folder") == 2
