"""Shifts, turns and scales are recovered below a fifth of a pixel; nothing is made worse."""

import math

import numpy as np
import pytest
import torch

from daemon.demo.render import write_geotiff
from detectors.registration import Field, fit_field, phase_shift, resample
from detectors.scene import open_scene

SIZE = 768


def texture(seed=3, size=SIZE):
    rng = np.random.default_rng(seed)
    image = torch.zeros(3, size, size)
    for grain in (3, 9, 30):
        coarse = torch.as_tensor(rng.standard_normal((1, 3, size // grain + 2, size // grain + 2)))
        image += torch.nn.functional.interpolate(
            coarse.float(), (size, size), mode="bicubic", align_corners=False
        )[0]
    return ((image - image.min()) / (image.max() - image.min()) * 220 + 15).float()


def moved(image, dx, dy, degrees=0.0, percent=0.0):
    """The image as a camera shifted, turned and scaled about its middle would see it."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    k = 1 + percent / 100
    matrix = ((k * c - 1, -k * s), (k * s, k * c - 1))
    back = Field((dx, dy), matrix, (SIZE / 2, SIZE / 2))
    return back, resample(image, back, origin=(0, 0), out=(0, 0, SIZE, SIZE))


def scene_of(tmp_path, before, after):
    bounds = (500_000.0, 6_280_000.0, 500_000.0 + SIZE / 2, 6_280_000.0 + SIZE / 2)
    for name, image in (("before", before), ("after", after)):
        write_geotiff(tmp_path / f"{name}.tif", image.clamp(0, 255).round().byte().numpy(), bounds)
    return open_scene([tmp_path / "before.tif"], tmp_path / "after.tif")


@pytest.mark.parametrize(
    ("dx", "dy", "degrees", "percent"),
    [(1.2, -0.9, 0, 0), (3.0, 2.0, 0, 0), (-2.4, 0.3, 0.2, 0), (0.5, -1.5, -0.1, 0.2)],
)
def test_a_known_move_is_recovered_to_a_fifth_of_a_pixel(tmp_path, dx, dy, degrees, percent):
    image = texture()
    forward, after = moved(image, dx, dy, degrees, percent)
    noise = torch.as_tensor(np.random.default_rng(1).normal(0, 3, after.shape)).float()
    with scene_of(tmp_path, image, after + noise) as scene:
        ys, xs = torch.meshgrid(
            torch.linspace(60, SIZE - 60, 9), torch.linspace(60, SIZE - 60, 9), indexing="ij"
        )
        found = scene.field.shift(xs, ys)
        # where a pixel of BEFORE is found in AFTER is the inverse of how AFTER was made
        there = (xs + found[0], ys + found[1])
        back = forward.shift(*there)
        error = torch.hypot(there[0] + back[0] - xs, there[1] + back[1] - ys)
        assert float(error.max()) < 0.2


def test_an_image_with_itself_is_not_resampled(tmp_path):
    image = texture()
    with scene_of(tmp_path, image, image) as scene:
        assert scene.field.is_identity
        tile = scene.tile(scene.grid.window)
        assert torch.equal(tile.before, tile.after)


def test_a_peak_of_unrelated_images_is_low():
    a, b = texture(1, 256)[0], texture(2, 256)[0]
    _, _, unrelated = phase_shift(a, b)
    _, _, same = phase_shift(a, a)
    assert same > 3 * unrelated


def test_images_of_two_places_are_left_where_they_are(tmp_path):
    with scene_of(tmp_path, texture(1), texture(2)) as scene:
        assert scene.field.is_identity


def test_the_few_tiles_that_agree_outweigh_the_many_that_do_not():
    rng = np.random.default_rng(4)
    centres = [(float(x), float(y)) for x in range(128, 900, 100) for y in range(128, 900, 100)]
    shifts = [tuple(rng.uniform(-20, 20, 2)) for _ in centres]
    true = rng.permutation(len(centres))[: int(0.4 * len(centres))]
    for index in true:
        shifts[index] = (4.5 + rng.normal(0, 0.2), -2.5 + rng.normal(0, 0.2))
    field = fit_field(centres, shifts, [5.0] * len(centres), shape=(1024, 1024))
    assert field.offset == pytest.approx((4.5, -2.5), abs=0.3)
    assert field.reach((1024, 1024)) == pytest.approx(math.hypot(4.5, 2.5), abs=0.8)


def test_tiles_that_agree_on_nothing_give_no_field():
    rng = np.random.default_rng(5)
    centres = [(float(x), float(y)) for x in range(128, 900, 100) for y in range(128, 900, 100)]
    shifts = [tuple(rng.uniform(-20, 20, 2)) for _ in centres]
    assert fit_field(centres, shifts, [5.0] * len(centres), shape=(1024, 1024)).is_identity
