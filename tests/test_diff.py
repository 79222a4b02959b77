"""The differential: only what is not shared is compared, corrections are told from evolutions."""

import pytest
from shapely.geometry import box

from schemas.change import ChangeKind
from updater.diff import Differential, overlay
from updater.types import MapPolygon


def polygon(name, cs, us, shape, version):
    return MapPolygon(name, cs, us, 2021, shape, version=version)


FIELD = polygon("F", "CS2.2.1", "US1.1", box(0, 0, 100, 100), 1)
WOOD = polygon("W", "CS2.1.1.1", "US1.2", box(100, 0, 200, 100), 2)
SMALLER = polygon("F", "CS2.2.1", "US1.1", box(0, 0, 60, 100), 3)
HOUSE = polygon("H", "CS1.1.1.1", "US5", box(60, 0, 100, 100), 4)


def test_ground_that_kept_its_codes_is_no_piece_although_its_outline_moved():
    (piece,) = overlay([FIELD, WOOD], [SMALLER, HOUSE, WOOD], corrections=set())
    assert (piece.id_before, piece.id_after) == ("F", "H")
    assert piece.geometry.area == pytest.approx(4_000)
    assert piece.artificialisation == 1 and piece.kind is ChangeKind.EVOLUTION


def test_there_and_back_are_opposite():
    forth = Differential(overlay([FIELD], [SMALLER, HOUSE], corrections=set()))
    back = Differential(overlay([SMALLER, HOUSE], [FIELD], corrections=set()))
    assert forth.area(artificialisation=1) == back.area(artificialisation=-1) == 4_000
    assert forth.area(artificialisation=-1) == 0
    assert forth.matrix() == {"CS2.2.1": {"CS1.1.1.1": 4_000}}
    assert back.matrix() == {"CS1.1.1.1": {"CS2.2.1": 4_000}}


def test_a_correction_is_no_evolution_and_weighs_nothing():
    found = Differential(overlay([FIELD], [SMALLER, HOUSE], corrections={FIELD.version}))
    assert found.count(ChangeKind.CORRECTION) == 1 and found.count(ChangeKind.EVOLUTION) == 0
    assert found.area(artificialisation=1) == 0


def test_the_same_state_twice_differs_in_nothing():
    assert overlay([FIELD, WOOD], [FIELD, WOOD], corrections=set()) == []
