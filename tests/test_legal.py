"""The legal matrix against the décret's table, cell by cell."""

import pytest

from schemas.legal import LegalStatus, legal_status, matrix_row
from schemas.nomenclature import CS_LEAVES, US_CODES

ALWAYS = {"CS1.1.1.1", "CS1.1.1.2", "CS1.1.2.2"}
BUT_QUARRIES = {"CS1.1.2.1"}
BY_USE = {"CS2.2.1", "CS2.2.2"}
USES = {"US2", "US3", "US5", "US235", "US4.1.1", "US4.1.2", "US4.1.3", "US4.1.4", "US4.1.5"} | {
    "US4.2",
    "US4.3",
    "US6.1",
    "US6.2",
}


@pytest.mark.parametrize("cs", CS_LEAVES)
@pytest.mark.parametrize("us", US_CODES)
def test_each_of_the_280_cells_is_the_decrets(cs, us):
    expected = (
        cs in ALWAYS or (cs in BUT_QUARRIES and us != "US1.3") or (cs in BY_USE and us in USES)
    )
    assert (legal_status(cs, us) is LegalStatus.ARTIF) == expected


def test_a_missing_code_is_never_artificialised():
    assert legal_status(None, "US5") is LegalStatus.NON_ARTIF
    assert legal_status("CS1.1.1.1", None) is LegalStatus.NON_ARTIF


def test_the_row_that_decides_is_readable():
    assert matrix_row("CS1.1.2.1").endswith("except US1.3")
    assert "never" in matrix_row("CS1.2.2")
    assert "US6.2" in matrix_row("CS2.2.1") and "US1.1" not in matrix_row("CS2.2.1")
