"""Scoring is arithmetic on masks; the runner takes GeoTIFF, PNG and building maps."""

import json

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

from daemon.demo.render import write_geotiff
from detectors.evaluate import NoPairs, Pair, evaluate, pairs, score

BOUNDS = (500_000.0, 6_280_000.0, 500_080.0, 6_280_080.0)


def test_the_figures_are_those_of_the_change_class():
    truth = np.zeros((100, 100), bool)
    truth[10:30, 10:30] = True
    found = np.zeros_like(truth)
    found[10:30, 15:35] = True
    pair = Pair("p", None, None, truth, None, None)
    figures = score(found, pair, pixel_area=1.0).figures()
    assert figures["precision"] == figures["recall"] == pytest.approx(0.75)
    assert figures["f1"] == pytest.approx(0.75) and figures["iou"] == pytest.approx(0.6)
    assert figures["polygon_precision"] == figures["polygon_recall"] == 1.0


def test_nothing_found_and_nothing_true_are_zero_not_an_error():
    empty = np.zeros((10, 10), bool)
    figures = score(empty, Pair("p", None, None, empty, None, None), pixel_area=1.0).figures()
    assert set(figures.values()) == {0.0}


def make_pairs(folder):
    rng = np.random.default_rng(4)
    before = np.clip(rng.normal(100, 12, (3, 160, 160)), 0, 255).astype(np.uint8)
    after = before.copy()
    after[:, 40:80, 40:100] = 230
    for name in ("tif", "png", "map"):
        (folder / name).mkdir()
    for stem, image in (("before", before), ("after", after)):
        write_geotiff(folder / "tif" / f"{stem}.tif", image, BOUNDS)
        write_geotiff(folder / "map" / f"{stem}.tif", image, BOUNDS)
        Image.fromarray(np.moveaxis(image, 0, -1)).save(folder / "png" / f"{stem}.png")
    mask = np.zeros((160, 160), np.uint8)
    mask[40:80, 40:100] = 255
    Image.fromarray(mask).save(folder / "png" / "change.png")
    Image.fromarray(mask).save(folder / "tif" / "change.png")
    house = box(500_020, 6_280_040, 500_050, 6_280_060)
    gpd.GeoDataFrame({"status": ["new"]}, geometry=[house], crs=2154).to_file(
        folder / "map" / "buildings.geojson"
    )


def test_every_kind_of_pair_is_read_and_scored(tmp_path):
    make_pairs(tmp_path)
    found = {pair.name: pair for pair in pairs(tmp_path)}
    assert set(found) == {"map", "png", "tif"}
    assert found["map"].map_before is not None and found["map"].truth.sum() == 60 * 40
    report = evaluate(tmp_path, detector="cva")
    assert json.loads(json.dumps(report))["pairs"] == 3
    assert report["f1"] > 0.9 and len(report["per_pair"]) == 3
    assert {"precision", "recall", "iou", "polygon_recall", "megapixels_per_second"} <= set(report)


def test_a_folder_without_pairs_says_what_one_is(tmp_path):
    with pytest.raises(NoPairs, match=r"before\.\*"):
        evaluate(tmp_path)
    with pytest.raises(NoPairs, match="no folder"):
        evaluate(tmp_path / "none")
