"""The legal matrix against the décret's table, cell by cell."""

from collections import Counter

import pytest

from schemas.alert import AlertKind
from schemas.legal import LegalStatus, legal_status, matrix_row
from schemas.nomenclature import CS_LEAVES, US_CODES
from updater.types import by_matrix, kinds_of

ALWAYS = {"CS1.1.1.1", "CS1.1.1.2", "CS1.1.2.2"}
BUT_QUARRIES = {"CS1.1.2.1"}
BY_USE = {"CS2.2.1", "CS2.2.2"}
USES = {"US2", "US3", "US5", "US235", "US4.1.1", "US4.1.2", "US4.1.3", "US4.1.4", "US4.1.5"} | {
    "US4.2",
    "US4.3",
    "US6.1",
    "US6.2",
}


def is_artificial(cs, us):
    """The décret's table, written down once more."""
    return cs in ALWAYS or (cs in BUT_QUARRIES and us != "US1.3") or (cs in BY_USE and us in USES)


@pytest.mark.parametrize("cs", CS_LEAVES)
@pytest.mark.parametrize("us", US_CODES)
def test_each_of_the_280_cells_is_the_decrets(cs, us):
    assert (legal_status(cs, us) is LegalStatus.ARTIF) == is_artificial(cs, us)


def test_every_pair_of_cells_is_a_flux_one_way_the_other_way_or_none():
    """280 × 280 changes: the kind follows the décret's table of both cells, in both directions."""
    cells = [(cs, us) for cs in CS_LEAVES for us in US_CODES]
    sides = [by_matrix(*cell) for cell in cells]
    artificial = [is_artificial(*cell) for cell in cells]
    fluxes = Counter()
    for was, before in zip(artificial, sides, strict=True):
        for now, after in zip(artificial, sides, strict=True):
            kinds = kinds_of(before, after)
            assert (AlertKind.ARTIFICIALISATION in kinds) == (now and not was)
            assert (AlertKind.DESARTIFICIALISATION in kinds) == (was and not now)
            fluxes[(was, now)] += 1
    yes = sum(artificial)
    assert fluxes[(False, True)] == fluxes[(True, False)] == yes * (len(cells) - yes) > 0


def test_a_missing_code_is_never_artificialised():
    assert legal_status(None, "US5") is LegalStatus.NON_ARTIF
    assert legal_status("CS1.1.1.1", None) is LegalStatus.NON_ARTIF


def test_the_row_that_decides_is_readable():
    assert matrix_row("CS1.1.2.1").endswith("except US1.3")
    assert "never" in matrix_row("CS1.2.2")
    assert "US6.2" in matrix_row("CS2.2.1") and "US1.1" not in matrix_row("CS2.2.1")
