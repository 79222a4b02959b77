"""Every detector keeps the protocol and says where it comes from."""

import pytest
from rasterio.transform import from_origin

from detectors.errors import UnknownDetector
from detectors.registry import DETECTORS, default_detector, make_detector
from detectors.types import Grid


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_is_named_as_it_is_asked_for_and_cites_its_source(name):
    detector = make_detector(name)
    assert detector.name == name and detector.version and detector.margin >= 0
    assert DETECTORS[name].source and DETECTORS[name].summary
    assert make_detector(name) is not detector


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UnknownDetector, match=r"map-guided"):
        make_detector("magic")


def test_the_default_uses_the_map_where_there_is_one():
    assert default_detector(has_map=True) == "map-guided"
    assert not make_detector(default_detector(has_map=False)).needs_map


def test_sentinel_2_in_degrees_is_not_taken_for_centimetres():
    grid = Grid("EPSG:4326", from_origin(1.2, 44.0, 1e-4, 1e-4), (100, 100), 0)
    assert grid.gsd_m == pytest.approx(9.5, abs=0.3)
    assert default_detector(has_map=False, gsd=grid.gsd_m, bands=10) == "irmad"
