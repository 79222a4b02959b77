"""The demo as a newcomer runs it: the command, its contract, and what it leaves behind."""

import json
import subprocess
import sys

import geopandas as gpd
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli", "demo", "--seed", "1", "--workdir", folder, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, json.loads(done.stdout)


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
