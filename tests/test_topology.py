"""Invariants are really asserted: a patch that breaks one is refused."""

import pytest
import shapely
from shapely.geometry import Polygon, box

from updater import topology
from updater.errors import PatchRefused

LEFT, RIGHT = box(0, 0, 50, 100), box(50, 0, 100, 100)


def test_a_good_cut_passes():
    parts = [box(0, 0, 50, 40), box(0, 40, 50, 100)]
    right = topology.with_nodes(RIGHT, topology.new_vertices(parts, [LEFT]))
    assert len(right.exterior.coords) == len(RIGHT.exterior.coords) + 1
    topology.assert_invariants([LEFT, RIGHT], [*parts, right], where="here")


@pytest.mark.parametrize(
    ("after", "word"),
    [
        ([box(0, 0, 55, 100), RIGHT], "tears"),
        ([box(0, 0, 40, 100), RIGHT], "area"),
        ([box(0, 0, 50, 40), box(0, 40, 50, 100), RIGHT], "tears"),
        ([box(-1, 0, 49, 100), RIGHT], "outside"),
        ([Polygon([(0, 0), (50, 100), (50, 0), (0, 100)]), RIGHT], "invalid"),
    ],
)
def test_a_broken_patch_is_refused_naming_what_broke(after, word):
    with pytest.raises(PatchRefused, match=word):
        topology.assert_invariants([LEFT, RIGHT], after, where="here")


def test_nodes_off_the_edge_are_not_taken_and_the_object_stays_the_same():
    assert topology.with_nodes(RIGHT, shapely.MultiPoint([(60, 50)])) is RIGHT
    assert topology.with_nodes(RIGHT, shapely.MultiPoint([(50, 0)])) is RIGHT


def test_cleaning_closes_a_sliver_of_a_grid_step():
    frame = [
        box(-10, -10, 110, 0),
        box(-10, 100, 110, 110),
        box(-10, 0, 0, 100),
        box(100, 0, 110, 100),
    ]
    torn = [box(0, 0, 49.99, 100), RIGHT, *frame]
    assert topology.problem([LEFT, RIGHT, *frame], torn) is not None
    mended = topology.cleaned(torn)
    assert mended is not None and topology.is_valid_coverage(mended)
    assert shapely.union_all(mended).area == pytest.approx(120 * 120, abs=0.01)


def test_an_outline_that_crosses_itself_is_cut_all_the_same():
    bowtie = Polygon([(2, 2), (8, 8), (8, 2), (2, 8)])
    square = box(0, 0, 10, 10)
    assert topology.difference(square, bowtie).area == pytest.approx(100 - 18, abs=0.01)
    assert topology.intersection(square, bowtie).area == pytest.approx(18, abs=0.01)
    assert topology.union([square, bowtie]).area == pytest.approx(100)
