"""What people decided on teaches: read from the store, labelled by what was said, in its place."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import shapely
from shapely.geometry import box

from daemon.train import decisions, source_of
from detectors.annotated import SHARE, AnnotatedSource, Annotation, example_of
from detectors.map_source import in_held_out
from schemas.alert import FalseAlarm
from schemas.policy import Sensor
from tests.map_store import building, made_store, patched
from tests.test_raster import written
from updater.commit import add_image
from updater.reads import ImageRecord, alerts_now
from updater.review import accept_alert, reject_alert

GSD, SIDE = 0.5, 600.0
PLACES = [(120, 120), (420, 300)]


@pytest.fixture
def images(tmp_path):
    """The ground of a map of 600 m before and after two bright squares came."""
    rng = np.random.default_rng(3)
    pixels = int(SIDE / GSD)
    before = rng.integers(60, 100, (3, pixels, pixels)).astype(np.uint8)
    after = rng.integers(60, 100, (3, pixels, pixels)).astype(np.uint8)
    for x, y in PLACES:
        rows = slice(int((SIDE - y - 12) / GSD), int((SIDE - y + 12) / GSD))
        after[:, rows, int((x - 15) / GSD) : int((x + 15) / GSD)] = 230
    place = {"west": 0.0, "north": SIDE, "gsd": GSD}
    return (
        written(tmp_path / "before.tif", before, **place),
        written(tmp_path / "after.tif", after, **place),
    )


@pytest.fixture
def store(tmp_path, images):
    made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    for path, item, year in ((images[0], "before", 2021), (images[1], "bench-1", 2024)):
        add_image(
            made,
            ImageRecord(
                item=item,
                path=path,
                sensor=Sensor.PVA,
                acquired=datetime(year, 6, 18, tzinfo=UTC),
                gsd=GSD,
                footprint=box(0, 0, SIDE, SIDE),
            ),
        )
    patched(made, 1, [building(x, y) for x, y in PLACES], reference="before")
    yield made
    made.close()


def test_decisions_are_read_labelled_and_placed(store, images):
    first, second = sorted(alerts_now(store), key=lambda r: r.geometry.centroid.x)
    assert decisions(store) == []  # nobody decided yet
    accept_alert(store, first.id)
    reject_alert(store, second.id, reason="tent", cause=FalseAlarm.TEMPORARY)
    yes, no = sorted(decisions(store), key=lambda a: shapely.from_wkb(a.ground).centroid.x)
    assert (yes.before, yes.after) == images
    for one, record, changed in ((yes, first, True), (no, second, False)):
        house = shapely.from_wkb(one.ground)
        assert house.symmetric_difference(record.geometry).area < 1
        added = area(one.built_after) - area(one.built_before)
        # around the one lies the other, which the map shows only where it was not refused
        assert shapely.intersection(union(one.built_after), house).area == pytest.approx(
            house.area if changed else 0.0, abs=1
        )
        assert added >= (house.area - 1 if changed else -1)
        example = example_of(one, np.random.default_rng(0), size=160)
        light = example.after.astype(float).mean(axis=0)
        bright = light > light.mean() + 40
        assert 0.9 < bright.sum() * GSD**2 / 720 < 1.1  # the square is in the window
        if changed:
            assert (example.changed & bright).sum() > 0.9 * bright.sum()
            assert example.changed.sum() < 1.1 * bright.sum()
        else:
            assert not example.changed.any()


def union(shapes):
    return shapely.union_all(shapely.from_wkb(list(shapes)))


def area(shapes):
    return float(union(shapes).area)


class Plain:
    """A source whose examples are told from decisions by their blackness."""

    @property
    def about(self):
        return {"data": "none"}

    def draw(self, rng, *, size, held_out):
        from detectors.training import Example

        black = np.zeros((3, size, size), np.uint8)
        return Example(black, black, black[0] > 0, black[0] > 0)


def test_decisions_are_a_bounded_share_and_never_cross_into_held_out_ground(images):
    def about(x, y):
        ground = shapely.to_wkb(box(x - 15, y - 12, x + 15, y + 12))
        return Annotation(*images, ground, (), (ground,))

    teaching = next(about(x, 300) for x in range(100, 500, 10) if not in_held_out(x, 300))
    source = AnnotatedSource(Plain(), (teaching,) * 200)
    assert source.share == SHARE and "200 alerts" in source.about["data"]
    assert AnnotatedSource(Plain(), (teaching,)).share < 0.02
    rng = np.random.default_rng(1)
    drawn = [source.draw(rng, size=64, held_out=False).before.any() for _ in range(80)]
    assert 0.1 < np.mean(drawn) < 0.4
    assert not any(source.draw(rng, size=64, held_out=True).before.any() for _ in range(80))


def test_a_store_with_decisions_teaches_them_and_one_without_does_not(store):
    path = store.path
    accept_alert(store, alerts_now(store)[0].id)
    store.close()
    source = source_of(path)
    assert isinstance(source, AnnotatedSource) and len(source.annotations) == 1
    assert json.dumps(source.about)
    example = source.base.draw(np.random.default_rng(0), size=64, held_out=False)
    assert example.before.shape == (3, 64, 64)
