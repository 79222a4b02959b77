"""The made-up landscape is what it says: whole, honest about clouds, the same for the same seed."""

from collections import Counter
from datetime import timedelta

import numpy as np
import pytest
import shapely
from rasterio.features import geometry_mask, rasterize

from daemon.bench.alerts import bench_alerts
from daemon.bench.scenes import Scenery
from daemon.bench.spectra import BANDS
from schemas.nomenclature import CS_INDEX, CS_LEAVES, US_CODES


def prior_of(scenery):
    """The map's covers and its farmed ground on the grid of a scenery."""
    polygons = scenery.polygons()
    size, place = scenery.grid.shape, scenery.grid.transform
    cover = rasterize([(p, CS_INDEX[cs]) for p, cs, _ in polygons], size, transform=place)
    farmed = rasterize([(p, int(us == "US1.1")) for p, _, us in polygons], size, transform=place)
    return cover, farmed > 0


@pytest.fixture(scope="module")
def scenery():
    return Scenery(7)


@pytest.fixture(scope="module")
def year(scenery):
    return [scenery.scene(i) for i in range(0, len(scenery.dates), 6)]


def index(image, a, b):
    return (image[a] - image[b]) / (image[a] + image[b])


def test_the_map_covers_the_frame_exactly(scenery):
    polygons = scenery.polygons()
    shapes = [p for p, _, _ in polygons]
    union = shapely.union_all(shapes)
    frame = shapely.box(*union.bounds)
    assert union.area == frame.area == sum(p.area for p in shapes) == 3_300.0**2
    assert shapely.coverage_is_valid(shapes)
    assert {cs for _, cs, _ in polygons} <= set(CS_LEAVES)
    assert {us for _, _, us in polygons} <= set(US_CODES)
    cover, farmed = prior_of(scenery)
    assert cover.min() > 0 and 0.4 < farmed.mean() < 0.95


def test_fifty_are_true_and_two_hundred_are_not(scenery):
    truth = scenery.truth
    planted = [t for t in truth if t.kind != "snow"]
    kinds = Counter(t.kind for t in planted)
    assert sum(t.artificial for t in planted) == 50 and len(planted) == 250
    assert len({t.kind for t in planted if not t.artificial}) >= 8
    assert kinds["earthworks"] == 15 and kinds["asphalt"] == 15
    end = scenery.dates[-1] + timedelta(days=5)
    for site in (t for t in planted if t.artificial):
        assert 1_100 <= site.geometry.area <= 6_200
        assert (site.begins - scenery.dates[0]).days >= 365
        assert (end - site.built).days >= 70 and site.built >= site.begins
    phases = [(t.built - t.begins).days for t in planted if t.kind == "earthworks"]
    assert min(phases) >= 30 and max(phases) <= 90
    overlaps = shapely.STRtree([t.geometry for t in planted]).query(
        [t.geometry.buffer(-0.5) for t in planted], predicate="intersects"
    )
    assert overlaps.shape[1] == len(planted)  # each meets itself only


def test_the_same_seed_gives_the_same_scenes(scenery):
    again, other = Scenery(7), Scenery(8)
    for number in (3, 90):
        image, valid, acquired = scenery.scene(number)
        same = again.scene(number)
        assert np.array_equal(image, same[0]) and np.array_equal(valid, same[1])
        assert acquired == same[2] == scenery.dates[number]
        assert not np.array_equal(image, other.scene(number)[0])


def test_half_the_ground_is_cloudy_and_some_of_it_is_missed(scenery, year):
    assert len(scenery.dates) == 146 and scenery.dates[1] - scenery.dates[0] == timedelta(days=5)
    clear = np.mean([valid.mean() for _, valid, _ in year])
    assert 0.3 < clear < 0.65
    missed = [
        (valid & (image[0] > 2_200) & (index(image, 1, 4) < 0.2)).mean() for image, valid, _ in year
    ]
    assert 0.002 < np.mean(missed) < 0.05


def test_spectra_are_plausible(scenery, year):
    cover, farmed = prior_of(scenery)
    for image, valid, acquired in year:
        assert image.dtype == np.float32 and image.shape == (len(BANDS), 330, 330)
        assert image.min() >= 1 and image.max() <= 12_000
        ndvi = index(image, 3, 2)
        broadleaf = valid & (cover == CS_LEAVES.index("CS2.1.1.1") + 1)
        if broadleaf.sum() > 2_000 and acquired.month in {6, 7, 8}:
            assert np.median(ndvi[broadleaf]) > 0.7
        fields = valid & farmed
        if fields.sum() > 5_000 and acquired.month in {5, 6}:
            assert np.quantile(ndvi[fields], 0.9) > 0.7 and np.quantile(ndvi[fields], 0.02) < 0.35


def test_a_site_shows_what_was_planted_there(scenery):
    shown = 0
    for site in (t for t in scenery.truth if t.kind == "asphalt" and t.geometry.area > 2_500):
        inside = geometry_mask(
            [site.geometry.buffer(-10)], scenery.grid.shape, scenery.grid.transform, invert=True
        )
        for number, date in enumerate(scenery.dates):
            if date < site.built:
                continue
            image, valid, _ = scenery.scene(number)
            if valid[inside].all() and inside.any():
                blue, swir = image[0][inside].mean(), image[4][inside].mean()
                assert swir < 2.6 * blue and index(image, 3, 2)[inside].mean() < 0.3
                shown += 1
                break
    assert shown >= 4


@pytest.mark.long
def test_alerts_are_few_true_and_soon_at_an_unseen_seed():
    result = bench_alerts(seed=21)
    assert result["recall"] >= 0.9 and result["precision"] >= 0.9
    assert result["delay_looks"] <= 3
    first, provisional, confirmed = (row["precision"] for row in result["states"])
    assert first < provisional < confirmed
