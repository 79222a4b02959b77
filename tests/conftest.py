"""Fixtures: small real things on disk, never a mock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each: threads of two workers wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded, and by processes

from daemon.demo.landscape import DEPARTEMENT, MILLESIME
from tests.faults.tally import failure
from tests.scenes import SmallScene, make_small_scene
from updater.importer import create_store
from updater.store import Store

pytest.register_assert_rewrite("tests.publishing")  # shared by modules, and a plugin of theirs


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A run that is counted counts what failed, too."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:  # whose reports come here as well
        failure(report.nodeid)


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory: pytest.TempPathFactory) -> SmallScene:
    """A corner of the demo landscape: map, reference image, one acquisition."""
    return make_small_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture
def store(tmp_path: Path, small_scene: SmallScene) -> Iterator[Store]:
    """A store made from the small scene's map."""
    db = tmp_path / "D032.duckdb"
    create_store(
        db,
        small_scene.map,
        territory=DEPARTEMENT,
        millesime=MILLESIME,
        zone=small_scene.zone,
    )
    with Store.open(db) as opened:
        yield opened
