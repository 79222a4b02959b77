"""Training: a better network than before, resumed as if never stopped, state that is plain data."""

import json

import numpy as np
import pytest
import torch
from rasterio.transform import from_origin
from safetensors.torch import load_file
from shapely import to_wkb
from shapely.geometry import box

from detectors.map_source import MapSource
from detectors.network import SiameseNetwork, loss
from detectors.synthetic import SyntheticSource
from detectors.training import Plan, TrainingFailed, tensors, train
from tests.test_raster import written

TINY = {"steps": 2, "batch": 2, "size": 64, "seed": 5}


def test_a_few_steps_lower_the_loss():
    rng = np.random.default_rng(0)
    batch = tensors([SyntheticSource().draw(rng, size=96, held_out=False) for _ in range(3)])
    torch.manual_seed(0)
    network = SiameseNetwork().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    values = []
    for _ in range(12):
        value = loss(network(batch[0], batch[1]), batch[2], batch[3])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.8 * values[0]


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path):
    ticks = []
    train(
        SyntheticSource(),
        tmp_path / "whole",
        plan=Plan(epochs=2, **TINY),
        progress=lambda stage, done, total: ticks.append((stage, done, total)),
    )
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        train(
            SyntheticSource(),
            broken,
            plan=Plan(epochs=2, **TINY),
            progress=lambda stage, done, total: _interrupt(done),
        )
    figures = train(SyntheticSource(), broken, plan=Plan(epochs=2, **TINY), resume=True)
    whole, again = (load_file(tmp_path / n / "last.safetensors") for n in ("whole", "broken"))
    assert figures["epochs"] == 2
    for name, value in whole.items():
        assert torch.allclose(value.float(), again[name].float(), atol=1e-5), name
    assert ticks[-1][1:] == (4, 4) and "loss" in ticks[-1][0]
    card = json.loads((broken / "siamese.json").read_text())
    assert card["seed"] == 5 and set(card["validation"]) == {"f1", "iou"}


def _interrupt(done):
    if done == 3:  # in the second epoch
        raise KeyboardInterrupt


def test_a_folder_with_a_run_is_not_overwritten_and_none_is_not_resumed(tmp_path):
    with pytest.raises(TrainingFailed, match="no run to resume"):
        train(SyntheticSource(), tmp_path, plan=Plan(**TINY), resume=True)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(TrainingFailed, match="--resume"):
        train(SyntheticSource(), tmp_path, plan=Plan(**TINY))


@pytest.fixture
def millesime(tmp_path):
    """A reference image of 240 m whose bright squares are its buildings."""
    rng = np.random.default_rng(2)
    image = rng.integers(60, 110, (3, 1200, 1200)).astype(np.uint8)
    houses = []
    for row in range(60, 1150, 150):
        for col in range(60, 1150, 150):
            image[:, row : row + 60, col : col + 60] = 230
            west, north = 500_000 + col * 0.2, 6_300_000 - row * 0.2
            houses.append(box(west, north - 12, west + 12, north))
    path = written(tmp_path / "ref.tif", image, west=500_000.0, north=6_300_000.0, gsd=0.2)
    assert from_origin(0, 0, 1, 1)
    return MapSource((path,), (tuple(to_wkb(h) for h in houses),))


def test_a_millesime_alone_teaches_change(millesime):
    rng = np.random.default_rng(1)
    examples = [millesime.draw(rng, size=128, held_out=False) for _ in range(30)]
    same = [e for e in examples if np.array_equal(e.built_before, e.built_after)]
    assert 5 < len(same) < 25
    for example in examples:
        assert not np.array_equal(example.before, example.after)
        if example.built_before.any() and not example.built_before.all():
            light = example.before.mean(axis=0)
            assert light[example.built_before].mean() > light[~example.built_before].mean() + 20
    assert millesime.about["gsd"] == [0.2]


def test_held_out_ground_is_other_ground(millesime):
    from detectors.map_source import _ground, _serves
    from detectors.types import Window

    grid = _ground(millesime, 0).grid
    steps = range(0, 1200 - 128, 67)
    places = [Window(r, c, 128, 128) for r in steps for c in steps]
    held = [w for w in places if _serves(grid, w, held_out=True)]
    teaching = [w for w in places if _serves(grid, w, held_out=False)]
    assert held and teaching and not set(held) & set(teaching)


def test_no_image_large_enough_is_said(millesime):
    with pytest.raises(TrainingFailed, match="larger images"):
        millesime.draw(np.random.default_rng(0), size=4096, held_out=False)
