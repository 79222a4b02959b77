"""Every detector keeps the protocol and says where it comes from."""

import pytest

from detectors.errors import UnknownDetector
from detectors.registry import DETECTORS, default_detector, make_detector


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
