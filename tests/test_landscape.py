"""The demo landscape: a valid coverage, large enough, the same for a seed, with honest change."""

import numpy as np
import pytest
import shapely

from daemon.demo.landscape import make_landscape
from daemon.demo.render import render_after, render_before
from daemon.demo.score import score
from schemas.nomenclature import CS_LEAVES
from updater.diff import Differential


@pytest.fixture(scope="module", params=[1, 17])
def landscape(request):
    return make_landscape(request.param)


def test_it_is_a_coverage_of_at_least_500_polygons_over_a_square_kilometre(landscape):
    shapes = np.array(landscape.before.geometry)
    assert len(shapes) >= 500 and shapely.area(shapes).sum() >= 1e6 - 1
    assert shapely.coverage_is_valid(shapes)
    assert set(landscape.before["code_cs"]) <= set(CS_LEAVES)
    assert {"CS1.1.1.1", "CS1.1.1.2", "CS2.2.1", "CS2.1.1.1", "CS1.2.2"} <= set(
        landscape.before["code_cs"]
    )


def test_at_least_twenty_true_changes_of_every_promised_kind(landscape):
    changes = landscape.changes
    assert len(changes) >= 20
    moves = set(zip(changes["cs_before"], changes["cs_after"], strict=True))
    assert any(b == "CS1.1.1.1" for _, b in moves), "new buildings"
    assert any(a == "CS1.1.1.1" for a, _ in moves), "demolitions"
    assert any(b == "CS1.1.1.2" for _, b in moves), "roads and car parks"
    assert any(a.startswith("CS2.1.1") for a, _ in moves), "clearings"
    assert any(b.startswith("CS1.1.2") for _, b in moves), "quarries"
    overlaps = shapely.union_all(list(changes.geometry)).area
    assert overlaps == pytest.approx(changes.geometry.area.sum(), rel=1e-6)


def test_a_seed_is_a_landscape_and_a_picture():
    first, again, other = (make_landscape(s) for s in (5, 5, 6))
    assert first.before.geometry.geom_equals(again.before.geometry).all()
    assert len(first.before) != len(other.before) or not (
        first.before.geometry.geom_equals(other.before.geometry).all()
    )


def test_nearly_every_pixel_differs_between_the_dates(landscape):
    before, after = (r(landscape, 4.0) for r in (render_before, render_after))
    assert before.shape == after.shape and before.shape[0] == 3
    assert (before != after).any(axis=0).mean() > 0.9


def test_an_empty_differential_scores_nothing(landscape, tmp_path):
    landscape.changes.to_file(tmp_path / "truth.gpkg")
    figures = score(tmp_path / "truth.gpkg", Differential([]))
    assert figures["recall"] == 0 and figures["f1"] == 0
