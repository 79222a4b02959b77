"""The benchmark measures what it says, on images of the size asked for."""

import pytest
import rasterio

from daemon.bench.detect import bench_detect, make_big_pair
from daemon.bench.device import bench_device


def test_the_pair_is_tiled_and_differs(tmp_path):
    make_big_pair(tmp_path, 1100, 0)
    with rasterio.open(tmp_path / "before.tif") as a, rasterio.open(tmp_path / "after.tif") as b:
        assert a.shape == b.shape == (1100, 1100) and a.block_shapes[0] == (512, 512)
        assert (a.read(1) != b.read(1)).mean() > 0.5


def test_figures_are_consistent():
    made = bench_detect(size=1024, detector="irmad", device="cpu")
    assert made["megapixels"] == 1024**2 / 1e6 and made["device"] == "cpu"
    assert made["megapixels_per_second"] <= made["compute_megapixels_per_second"]
    assert 0 < made["efficiency"] <= 1.05 and made["peak_memory_bytes"] > 1e8


def test_a_device_is_measured_against_its_own_roof(monkeypatch):
    monkeypatch.setattr("daemon.bench.device.SECONDS", 0.05)
    monkeypatch.setattr("daemon.bench.device.COPY_BYTES", 1 << 22)
    monkeypatch.setitem(bench_device.__globals__["PRODUCT_SIDE"], "cpu", 256)
    made = bench_device(device="cpu", size=128, batch=2)
    cases = {row["case"]: row for row in made["cases"]}
    assert set(cases) == {"irmad float32", "siamese float32", "siamese bfloat16"}
    for row in made["cases"]:
        pixels = row["megapixels_per_second"]
        assert row["km2_per_second"] == pytest.approx(0.04 * pixels)
        assert row["least_bytes_per_pixel"] == 28  # two dates of three float32, one answer
    # about 0.1 MFLOP a pixel: an encoder that is run twice a date is not forgotten
    assert 2e4 < cases["siamese float32"]["flops_per_pixel"] < 1e6
    assert cases["siamese bfloat16"]["largest_difference"] < 0.2
