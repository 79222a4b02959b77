"""Fixtures: small real things on disk, never a mock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.demo.landscape import DEPARTEMENT, MILLESIME
from tests.scenes import SmallScene, make_small_scene
from updater.importer import create_store
from updater.store import Store


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
