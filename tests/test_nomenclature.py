"""The nomenclature is the product's, whole."""

import pytest

from schemas.nomenclature import (
    COUVERTURE,
    CS_INDEX,
    CS_LEAVES,
    US_CODES,
    USAGE,
    ancestors,
    class_distance,
)


def test_there_are_fourteen_covers_and_twenty_usages():
    assert len(CS_LEAVES) == len(set(CS_LEAVES)) == 14
    assert len(US_CODES) == len(set(US_CODES)) == 20


def test_leaves_have_no_children_and_other_covers_do():
    parents = {code.parent for code in COUVERTURE.values()}
    assert not parents & set(CS_LEAVES)
    assert {c for c in COUVERTURE if c not in CS_LEAVES} <= parents


@pytest.mark.parametrize("table", [COUVERTURE, USAGE])
def test_every_entry_has_a_label_a_colour_and_a_known_parent(table):
    for code, entry in table.items():
        assert entry.label and entry.code == code
        assert all(0 <= value <= 255 for value in entry.rgb)
        assert entry.parent is None or entry.parent in table


def test_raster_values_are_one_to_fourteen():
    assert sorted(CS_INDEX.values()) == list(range(1, 15))


def test_distance_grows_with_the_way_through_the_hierarchy():
    assert class_distance("CS2.1.1.1", "CS2.1.1.1") == 0
    assert (
        class_distance("CS2.1.1.1", "CS2.1.1.2")
        < class_distance("CS2.1.1.1", "CS2.1.2")
        < class_distance("CS2.1.1.1", "CS2.2.1")
        < class_distance("CS2.1.1.1", "CS1.1.1.1")
    )


def test_ancestors_run_from_the_code_to_the_root():
    assert ancestors("CS1.1.2.1") == ("CS1.1.2.1", "CS1.1.2", "CS1.1", "CS1")
