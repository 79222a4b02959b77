"""Legal status by the matrix, then the thresholds, in the order written down."""

import shapely
from shapely.geometry import box

from schemas.legal import LegalStatus
from updater.artificialisation import statuses
from updater.types import MapPolygon


def polygon(name, cs, us, shape):
    return MapPolygon(name, cs, us, 2021, shape)


def around(inner, cs, us):
    big = box(-300, -300, 300, 300)
    return polygon("OUT", cs, us, big.difference(shapely.union_all(inner)))


def status_of(polygons):
    return {
        p.id: (s.status, s.by_threshold) for p, s in zip(polygons, statuses(polygons), strict=True)
    }


def test_small_sealed_ground_in_fields_is_not_artificialised_large_is():
    small, large = box(0, 0, 40, 40), box(100, 100, 160, 160)
    found = status_of(
        [
            around([small, large], "CS2.2.1", "US1.1"),
            polygon("S", "CS1.1.1.2", "US3", small),
            polygon("L", "CS1.1.1.2", "US3", large),
        ]
    )
    assert found["S"] == (LegalStatus.NON_ARTIF, True)
    assert found["L"] == (LegalStatus.ARTIF, False)


def test_a_house_of_more_than_fifty_square_metres_is_always_artificialised():
    house, hut = box(0, 0, 10, 6), box(100, 100, 107, 107)
    found = status_of(
        [
            around([house, hut], "CS2.1.1.1", "US1.2"),
            polygon("H", "CS1.1.1.1", "US5", house),
            polygon("T", "CS1.1.1.1", "US5", hut),
        ]
    )
    assert found["H"] == (LegalStatus.ARTIF, False)
    assert found["T"] == (LegalStatus.NON_ARTIF, True)


def test_a_small_wood_in_town_counts_as_artificialised_a_large_one_not():
    small, large = box(0, 0, 40, 40), box(100, 100, 160, 160)
    found = status_of(
        [
            around([small, large], "CS2.2.1", "US5"),
            polygon("S", "CS2.1.1.1", "US6.3", small),
            polygon("L", "CS2.1.1.1", "US6.3", large),
        ]
    )
    assert found["S"] == (LegalStatus.ARTIF, True)
    assert found["L"] == (LegalStatus.NON_ARTIF, False)


def test_ground_at_the_edge_of_the_map_is_not_known_to_be_enclosed():
    found = status_of(
        [
            polygon("E", "CS1.1.1.2", "US3", box(0, 0, 30, 30)),
            polygon("F", "CS2.2.1", "US1.1", box(30, 0, 300, 30)),
        ]
    )
    assert found["E"] == (LegalStatus.ARTIF, False)


def test_nothing_is_nothing():
    assert statuses([]) == []
