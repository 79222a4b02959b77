"""An alert's three forms say the same; rows of earlier versions are still read."""

import json
from datetime import UTC, datetime

import geopandas as gpd
import pytest
import shapely
from shapely.geometry import box

from daemon.planning import with_places
from schemas.alert import AlertState
from schemas.legal import LegalStatus
from schemas.policy import Sensor
from schemas.territory import TerritoryKind
from tests.map_store import building, made_store, patched
from tests.test_alerts import CONFIRMED, DENIED, FINISHED, REJECTED, SUPERSEDED, look, sighting
from updater.alert_rows import by_rank, message, rank, record_from_row, record_to_row
from updater.alerts import follow
from updater.lineage import heirs
from updater.reads import alerts_now
from updater.territories import add_territories
from updater.types import Says, Side


@pytest.mark.parametrize("record", [CONFIRMED, FINISHED, DENIED, REJECTED, SUPERSEDED])
def test_a_record_reads_back_as_it_was_written(record):
    assert record_from_row(*record_to_row(record)) == record


def test_a_row_that_kept_sums_is_read_as_looks():
    old = {
        "id": "AL0123456789ABCDEF0123",
        "kind": "artificialisation",
        "state": "confirmed",
        "sequence": 3,
        "cs_before": "CS2.2.1",
        "us_before": "US1.1",
        "cs_after": "CS1.1.1.1",
        "us_after": "US5",
        "probability": 0.7,
        "magnitude": 0.5,
        "looks": 3,
        "evidence": 6.3,
        "clean_looks": 0,
        "seen_first": "2024-06-01T00:00:00+00:00",
        "seen_last": "2024-06-21T00:00:00+00:00",
        "known_at": "2024-06-22T00:00:00+00:00",
        "acquisitions": ["a", "b", "c"],
        "sensors": ["pva", "pva", "sentinel-2"],
        "reference": "r",
        "detector": "d/1",
        "polygons": ["P"],
        "reason": None,
    }
    record = record_from_row(json.dumps(old), shapely.to_wkb(box(0, 0, 20, 20)))
    assert record.state is AlertState.CONFIRMED and record.looks == 3
    assert [o.acquired.day for o in record.observations] == [1, 11, 21]
    assert {o.says for o in record.observations} == {Says.CHANGED}
    assert record.after.status is LegalStatus.ARTIF and record.review is None
    assert record_from_row(*record_to_row(record)) == record
    no = record_from_row(
        json.dumps(old | {"state": "rejected", "reason": "tent"}), shapely.to_wkb(box(0, 0, 9, 9))
    )
    assert no.review is not None and no.review.reason == "tent"
    assert follow([no], [sighting(0.9, box(0, 0, 9, 9))], look(900)) == []


def test_the_message_explains_itself():
    text = message(CONFIRMED, departement="D032", crs="EPSG:2154")
    assert text.kind == "artificialisation" and "construction" in text.kinds
    assert text.before.status is LegalStatus.NON_ARTIF and "US4.1.1" in text.before.rule
    assert text.after.status is LegalStatus.ARTIF and "any usage" in text.after.rule
    assert text.after.threshold is None
    assert text.looks == 3 and len(text.acquisitions) == 3 and text.reference_acquisition == "ref"
    assert text.seen_first < text.known_at.date() and text.detector == "map-guided/1"
    small = Side("CS1.1.1.2", "US4.1.1", LegalStatus.NON_ARTIF, by_threshold=True)
    (step,) = follow([], [sighting(after=small)], look(1))
    text = message(step.after, departement="D032", crs="EPSG:2154")
    assert text.kind == "other" and "2 500 m²" in text.after.threshold


def test_rank_puts_large_sure_and_legal_first():
    large = sighting(0.9, box(0, 0, 100, 100))
    lawn = Side("CS2.2.1", "US5", LegalStatus.ARTIF)
    cases = [sighting(0.9), large, sighting(0.9, box(0, 0, 100, 100), before=lawn)]
    records = [follow([], [case], look(1))[0].after for case in cases]
    assert by_rank(records) == [records[1], records[2], records[0]]
    assert rank(records[1]) == pytest.approx(9000)


@pytest.fixture
def store(tmp_path):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    rows = {"code_insee": ["32013", "32107"], "nom": ["Auch", "Pavie"]}
    frame = gpd.GeoDataFrame(rows, geometry=[box(0, 0, 290, 600), box(290, 0, 600, 600)], crs=2154)
    frame.to_file(tmp_path / "communes.gpkg")
    add_territories(made, tmp_path / "communes.gpkg", TerritoryKind.COMMUNE)
    frame = gpd.GeoDataFrame(
        {"code_siren": ["200066926"], "nom": ["Grand Auch"]},
        geometry=[box(0, 0, 900, 900)],
        crs=2154,
    )
    frame.to_file(tmp_path / "epci.gpkg")
    add_territories(made, tmp_path / "epci.gpkg", TerritoryKind.EPCI)
    yield made
    made.close()


def test_an_alert_says_where_it_lies_the_commune_that_holds_most_of_it_first(store):
    cases = [sighting(0.9, box(100, 100, 140, 130)), sighting(0.9, box(280, 200, 320, 230))]
    inside, across = (s.after for s in with_places(store, follow([], cases, look(1))))
    assert [p.code for p in inside.places] == ["32013", "200066926"]
    assert [p.name for p in across.places] == ["Pavie", "Auch", "Grand Auch"]
    text = message(across, departement="D032", crs="EPSG:2154")
    assert [p.kind for p in text.places] == ["commune", "commune", "epci"]
    nowhere = with_places(store, follow([], [sighting(0.9, box(2e3, 0, 3e3, 50))], look(1)))
    assert nowhere[0].after.places == () and with_places(store, []) == []


def test_an_alert_keeps_its_link_when_its_polygon_is_split_later(store):
    patched(store, 1, [building(150, 150, 60, 60)])
    (alert,) = alerts_now(store)
    assert heirs(store, alert.polygons, alert.geometry) == list(alert.polygons)
    hole = building(150, 150, 30, 24)
    patched(store, 2, [type(hole)(hole.geometry, "CS1.1.1.1", "CS1.1.1.2", 0.95, 0.8)], days=1100)
    now = heirs(store, alert.polygons, alert.geometry)
    assert now and set(now).isdisjoint(alert.polygons)
    rows = store.execute("SELECT id, ST_AsWKB(geom) FROM map_now").fetchall()
    shapes = {r[0]: shapely.from_wkb(bytes(r[1])) for r in rows}
    assert all(shapes[i].intersects(alert.geometry) for i in now)


def test_a_stored_alert_knows_its_sensor_and_clock(store):
    patched(store, 1, [building(150, 150)])
    (alert,) = alerts_now(store)
    assert alert.observations[0].sensor is Sensor.PVA
    assert alert.known_at <= datetime.now(UTC)
