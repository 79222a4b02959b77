"""The tutorial as a newcomer types it, the demo in it, and what both leave behind."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pytest
from PIL import Image

from updater.reads import alerts_now
from updater.store import Store
from updater.verify import verify

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
MILLESIMED = f'millesimed() {{ {shlex.quote(sys.executable)} -m daemon.cli "$@"; }}'
"""Of the environment the tests run in, whether or not its commands are on the path."""


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    """A folder in which every block of the tutorial was run, in order and as written."""
    folder = tmp_path_factory.mktemp("tutorial")
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    done = subprocess.run(
        ["bash", "-eux", "-o", "pipefail", "-c", "\n".join([MILLESIMED, *blocks])],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=560,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


@pytest.fixture(scope="module")
def demo(tutorial):
    folder, _ = tutorial
    return folder / "demo", json.loads((folder / "demo" / "figures.json").read_text())


def test_the_tutorial_leaves_what_it_says(tutorial):
    folder, said = tutorial
    assert '"processed": 0, "duplicates": 1' in said  # announced again
    with Store.open(folder / "D032.duckdb") as store:
        assert verify(store, deep=True).valid
        told = store.execute("SELECT count(*) FROM alerts").fetchone()[0]
    assert told > 0
    assert len(gpd.read_file(folder / "ocsge-2024.gpkg")) > 600
    assert len(gpd.read_file(folder / "differential.gpkg")) > 0
    assert "CS2.2.1" in (folder / "matrix.csv").read_text()
    (town_hall,) = (folder / "outbox" / "subscriptions").iterdir()
    assert list(town_hall.glob("AL*.geojson"))
    with Image.open(folder / "alert.png") as picture:
        assert picture.width > picture.height


def test_what_was_rejected_in_the_tutorial_is(tutorial):
    folder, _ = tutorial
    with Store.open(folder / "demo" / "D032.duckdb") as store:
        rejected = [a for a in alerts_now(store) if a.state.value == "rejected"]
    assert [a.reason for a in rejected] == ["greenhouse under construction, permit 2023-114"]


def test_the_figures_meet_the_promise(demo):
    _, figures = demo
    assert figures["events"] == {
        "received": 6,
        "processed": 4,
        "duplicates": 1,
        "dead_lettered": 1,
    }
    coverage = figures["coverage"]
    assert coverage["valid"] and coverage["overlaps"] == 0 and coverage["gaps"] == 0
    assert coverage["area_drift"] <= 1e-6
    counts = figures["map"]
    assert counts["polygons_before"] >= 500
    assert counts["untouched"] >= 0.9 * counts["polygons_before"]
    assert figures["accuracy"]["f1"] >= 0.80
    assert sum(figures["alerts"].values()) > 0


def test_the_folder_holds_everything_it_says(demo):
    folder, figures = demo
    (millesime,) = folder.glob("OCS-GE_2-0__GPKG_*.gpkg")
    cover = gpd.read_file(millesime)
    assert len(cover) == figures["map"]["polygons_after"]
    assert {"code_cs", "code_us", "artif", "crit_seuil", "aire", "ossature"} <= set(cover.columns)
    (differential,) = folder.glob("OCS-GE_2-0_DIFF-*.gpkg")
    assert {"cs_avant", "cs_apres"} <= set(gpd.read_file(differential).columns)
    feed = json.loads((folder / "outbox" / "feed" / "alerts-D032.geojson").read_text())
    assert len(feed["features"]) == sum(figures["alerts"].values())
    with Image.open(folder / "changes.png") as picture:
        assert picture.width > 2 * picture.height
    assert "millesimed_events_total" in (folder / "metrics.prom").read_text()
    (failed,) = (folder / "inbox" / "failed").iterdir()
    assert "poison" in failed.name
