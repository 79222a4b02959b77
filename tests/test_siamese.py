"""The trained network: symmetric in its dates, still where nothing changed, good at houses."""

import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from daemon.demo.render import write_geotiff
from detectors.engine import detect_scene
from detectors.network import SiameseNetwork
from detectors.scene import open_scene
from detectors.siamese import Siamese, WeightsUnreadable, card_of, load, zoom_of
from detectors.synthetic import make_pair
from detectors.types import CHANGED, Window
from schemas.nomenclature import CS_INDEX

SIDE = 256
BOUNDS = (500_000.0, 6_280_000.0, 500_000.0 + 0.2 * SIDE, 6_280_000.0 + 0.2 * SIDE)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A made-up pair from a seed no training run draws, as files."""
    folder = tmp_path_factory.mktemp("pair")
    made = next(
        p
        for p in (make_pair(np.random.default_rng([77, i]), size=SIDE) for i in range(50))
        if 0.05 < p.changed.mean() < 0.4
    )
    for name in ("before", "after"):
        write_geotiff(folder / f"{name}.tif", getattr(made, name), BOUNDS)
    return folder / "before.tif", folder / "after.tif", made


def judged(before, after, **options):
    with (
        open_scene([before], after) as scene,
        detect_scene(scene, Siamese(), **options) as found,
    ):
        return found.read(scene.grid.window)


def test_swapping_the_dates_swaps_appeared_and_disappeared(pair):
    before, after, _ = pair
    with open_scene([before], after) as scene:
        detector = Siamese()
        detector.fit(scene, seed=0)
        forth = detector.logits(scene.tile(scene.grid.window))
        detector._ranges.reverse()  # each date keeps its own range
        tile = scene.tile(scene.grid.window)
        turned = type(tile)(tile.window, tile.after, tile.before, tile.valid, None)
        back = detector.logits(turned)
    assert torch.allclose(forth[0], back[0], atol=1e-3)
    assert torch.allclose(forth[1], back[2], atol=1e-3)
    assert torch.allclose(forth[2], back[1], atol=1e-3)


def test_a_pair_with_itself_flags_nothing(pair):
    before, _, _ = pair
    assert not judged(before, before)[0].any()


def test_tiled_and_whole_agree(tmp_path):
    side = 1024
    made = make_pair(np.random.default_rng([78, 3]), size=side)
    bounds = (500_000.0, 6_280_000.0, 500_000.0 + 0.2 * side, 6_280_000.0 + 0.2 * side)
    for name in ("before", "after"):
        write_geotiff(tmp_path / f"{name}.tif", getattr(made, name), bounds)
    pair = tmp_path / "before.tif", tmp_path / "after.tif"
    tiled, whole = (judged(*pair, tile_size=size)[0].astype(int) for size in (512, 1024))
    assert (whole >= CHANGED).any()
    difference = np.abs(tiled - whole)
    assert (difference <= 1).mean() > 0.99 and difference.max() <= 20
    assert ((tiled >= CHANGED) != (whole >= CHANGED)).mean() < 1e-4


def test_what_appeared_is_a_building_now(pair):
    before, after, made = pair
    layers = judged(before, after)
    flagged = layers[0] >= CHANGED
    house = CS_INDEX["CS1.1.1.1"]
    came = flagged & made.built_after & ~made.built_before
    went = flagged & made.built_before & ~made.built_after
    assert ((layers[3][came] == house).mean() if came.any() else 1) > 0.7
    assert ((layers[2][went] == house).mean() if went.any() else 1) > 0.7


def test_fresh_made_up_pairs_are_judged_well(tmp_path):
    tp = fp = fn = 0
    for seed in range(6):
        made = make_pair(np.random.default_rng([91, seed]), size=SIDE)
        for name in ("before", "after"):
            write_geotiff(tmp_path / f"{name}.tif", getattr(made, name), BOUNDS)
        found = judged(tmp_path / "before.tif", tmp_path / "after.tif")[0] >= CHANGED
        tp += int((found & made.changed).sum())
        fp += int((found & ~made.changed).sum())
        fn += int((~found & made.changed).sum())
    assert 2 * tp / (2 * tp + fp + fn) > 0.6


def test_the_pixel_decides_the_zoom():
    assert zoom_of(0.2) == zoom_of(0.5) == zoom_of(None) == zoom_of(10.0) == 1.0
    assert zoom_of(0.58) == pytest.approx(2.9) and zoom_of(0.05) == pytest.approx(0.25)


def test_a_coarser_image_is_judged_on_its_own_grid(pair, tmp_path):
    _, _, made = pair
    for name in ("before", "after"):
        image = getattr(made, name)[:, ::2, ::2]
        write_geotiff(tmp_path / f"{name}.tif", np.ascontiguousarray(image), BOUNDS)
    layers = judged(tmp_path / "before.tif", tmp_path / "after.tif")
    assert layers.shape == (4, SIDE // 2, SIDE // 2)


def test_the_card_says_what_the_weights_were_made_of():
    weights = files("detectors") / "weights" / "siamese.safetensors"
    card = card_of(weights)
    assert "no real image" in card["data"] and card["licence"] == "Apache-2.0"
    assert card["validation"]["f1"] > 0.6 and card["calibration"]["temperature"] > 0
    assert weights.stat().st_size < 30e6


def test_a_file_that_is_no_weights_says_what_to_do(tmp_path):
    with pytest.raises(WeightsUnreadable, match="millesimed train"):
        load(tmp_path / "none.safetensors", "cpu")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "other.json").write_text(json.dumps({"calibration": {"temperature": 1}}))
    with pytest.raises(WeightsUnreadable, match="no siamese weight file"):
        load(tmp_path / "other.safetensors", "cpu")


def test_only_the_trainable_part_is_stored():
    assert not any("encoder" in name for name in SiameseNetwork().state_dict())
    assert Window(0, 0, 1, 1).stop_row == 1
