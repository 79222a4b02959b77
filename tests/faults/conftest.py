"""What the fault tests share."""

import pytest

from tests.faults.processes import warm


@pytest.fixture(scope="session")
def starter():
    """A process that has everything loaded and starts services by forking."""
    with warm() as process:
        yield process
