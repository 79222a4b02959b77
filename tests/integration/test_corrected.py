"""A person's word against the real detector: sent in, attributed, and not overwritten without
evidence."""

from __future__ import annotations

import pytest
import shapely
from shapely.geometry import mapping

from daemon.service import Service, handled
from daemon.submit import Intake, event_of
from schemas.correction import Submission
from tests.scenes import announced, prepared
from updater import protection
from updater.corrections import corrections
from updater.crs import WGS84, reproject
from updater.reads import alerts_now, as_of, end_of, map_now
from updater.store import Store
from updater.verify import verify


def run(settings):
    service = Service(settings, once=True)
    service.run()
    return handled(service), service


def says(settings, ground, observed, author="auch"):
    """A batch that says of some ground that it is as the map of 2021 has it."""
    with Store.open(settings.db[0]) as store:
        pieces = [
            (shapely.intersection(p.geometry, ground), p.code_cs, p.code_us)
            for p in as_of(store, valid_at=end_of(2021))
            if p.geometry.intersects(ground)
        ]
        features = [
            {
                "type": "Feature",
                "geometry": mapping(reproject(shape, store.crs, WGS84)),
                "properties": {"code_cs": cs, "code_us": us},
            }
            for shape, cs, us in pieces
            if shape.area > 1
        ]
    values = {
        "type": "FeatureCollection",
        "features": features,
        "observed": observed,
        "source": "OCS communale",
    }
    return event_of(Submission.model_validate(values), author)


def cover(store, ground):
    """Square metres of some ground by code."""
    table = {}
    for p in map_now(store):
        area = p.geometry.intersection(ground).area
        if area > 1:
            key = p.code_cs, p.code_us
            table[key] = table.get(key, 0.0) + area
    return table


@pytest.fixture(scope="module")
def detected(tmp_path_factory, small_scene):
    """What the detector makes of the scene where nobody says anything."""
    settings = prepared(tmp_path_factory.mktemp("detected"), small_scene)
    announced(settings.inbox, small_scene.after)
    run(settings)
    with Store.open(settings.db[0]) as store:
        return alerts_now(store)


def test_a_detection_without_evidence_leaves_what_a_person_said(
    detected, small_scene, tmp_path, monkeypatch
):
    monkeypatch.setattr(protection, "CORRECTED_PROBABILITY", 1.01)  # nothing is so sure
    chosen = max(detected, key=lambda r: r.geometry.area)
    ground = chosen.geometry.buffer(4)
    settings = prepared(tmp_path, small_scene)
    batch = says(settings, ground, "2023-05-02T12:00:00Z")
    Intake.of(settings).deliver(batch)
    with Store.open(settings.db[0]) as store:
        before = cover(store, ground)
    counts, _ = run(settings)
    assert counts["processed"] == 1
    announced(settings.inbox, small_scene.after)
    Intake.of(settings).deliver(batch)  # and once more: it has had its effect
    counts, service = run(settings)
    assert counts == {"received": 2, "processed": 1, "duplicates": 1, "dead_lettered": 0}
    with Store.open(settings.db[0]) as store:
        after = cover(store, ground)
        assert {r.author for r in corrections(store)} == {"auch"}
        found = alerts_now(store)
        assert verify(store, deep=True).valid
    for key, area in before.items():
        assert after.get(key, 0.0) == pytest.approx(area, abs=2.0), key
    text = service.metrics.text().decode()
    assert 'regions_ignored_total{reason="corrected"} 0.0' not in text
    # it is warned of all the same, and elsewhere the detector drew what it draws
    assert any(r.geometry.intersection(ground).area > 50 for r in found)
    others = [r for r in detected if not r.geometry.intersects(ground)]
    assert len([r for r in found if not r.geometry.intersects(ground)]) == len(others)


def test_an_image_of_before_never_overwrites_however_sure(detected, small_scene, tmp_path):
    sure = max(detected, key=lambda r: r.probability)
    ground = sure.geometry.buffer(4)
    settings = prepared(tmp_path, small_scene)
    Intake.of(settings).deliver(says(settings, ground, "2024-06-18T12:00:00Z"))
    with Store.open(settings.db[0]) as store:
        before = cover(store, ground)
    announced(settings.inbox, small_scene.after, name="zz")
    counts, _ = run(settings)
    assert counts["processed"] == 2
    with Store.open(settings.db[0]) as store:
        after = cover(store, ground)
        assert not any(r.geometry.intersection(ground).area > 50 for r in alerts_now(store))
    for key, area in before.items():
        assert after.get(key, 0.0) == pytest.approx(area, abs=2.0), key
