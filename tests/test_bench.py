"""The benchmark measures what it says, on images of the size asked for."""

import rasterio

from daemon.bench import bench_detect, make_big_pair


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
