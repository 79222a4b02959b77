"""Reading images: what is refused, what is aligned, what wins in a mosaic."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from detectors.errors import (
    BandlessImage,
    NoOverlap,
    TruncatedImage,
    UnreadableImage,
    WrongCrs,
)
from detectors.raster import Raster, common_grid, grid_of, is_aligned, open_dataset
from detectors.types import Window


def written(path, image, *, west=0.0, north=100.0, gsd=1.0, crs="EPSG:2154", **profile):
    settings = {
        "driver": "GTiff",
        "height": image.shape[1],
        "width": image.shape[2],
        "count": image.shape[0],
        "dtype": image.dtype,
        "transform": from_origin(west, north, gsd, gsd),
        "crs": crs,
    } | profile
    with rasterio.open(path, "w", **settings) as target:
        target.write(image)
    return path


def ramp(rows=64, cols=64, bands=3):
    rng = np.random.default_rng(1)
    return rng.integers(1, 255, (bands, rows, cols)).astype(np.uint8)


def test_what_is_no_image_is_refused_by_its_first_bytes(tmp_path):
    vrt = tmp_path / "points_elsewhere.tif"
    vrt.write_text("<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>")
    with pytest.raises(UnreadableImage, match="deliver a GeoTIFF"):
        open_dataset(vrt)
    with pytest.raises(UnreadableImage, match="check the path"):
        open_dataset(tmp_path / "none.tif")


def test_complex_numbers_are_no_image(tmp_path):
    radar = written(tmp_path / "radar.tif", ramp().astype(np.complex64))
    with pytest.raises(UnreadableImage, match="amplitude"):
        open_dataset(radar)


def test_no_crs_and_too_many_bands_are_refused(tmp_path):
    with pytest.raises(WrongCrs, match="EPSG:2154"):
        open_dataset(written(tmp_path / "a.tif", ramp(), crs=None))
    with pytest.raises(BandlessImage, match="40 bands"):
        open_dataset(written(tmp_path / "b.tif", ramp(8, 8, 40)))


def test_a_truncated_file_says_so_when_its_end_is_read(tmp_path):
    path = written(tmp_path / "a.tif", ramp(512, 512), tiled=True, blockxsize=256, blockysize=256)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((TruncatedImage, UnreadableImage)):
        with open_dataset(path) as dataset:
            grid = grid_of(dataset)
        with Raster([path], grid) as raster:
            raster.read(grid.window)


def test_a_window_is_the_files_own_pixels_and_outside_it_is_not_valid(tmp_path):
    image = ramp()
    path = written(tmp_path / "a.tif", image)
    with open_dataset(path) as dataset:
        grid = grid_of(dataset)
    with Raster([path], grid) as raster:
        pixels, valid = raster.read(Window(10, 20, 30, 40))
        assert np.array_equal(pixels, image[:, 10:40, 20:60]) and valid.all()


def test_where_images_overlap_the_first_valid_one_wins(tmp_path):
    a = np.full((1, 40, 40), 50, np.uint8)
    a[:, :10] = 0
    b = np.full((1, 40, 40), 90, np.uint8)
    paths = [
        written(tmp_path / "a.tif", a, nodata=0),
        written(tmp_path / "b.tif", b, west=20.0),
    ]
    grid = common_grid(paths, paths[1], whole_before=False)
    with Raster(paths, grid) as raster:
        pixels, valid = raster.read(grid.window)
    assert grid.shape == (40, 40)  # the ground the second image shows
    assert (pixels[0, 10:, :20] == 50).all() and (pixels[0, :, 20:] == 90).all()
    assert (pixels[0, :10, :20] == 90).all()  # the first one has no data there
    assert valid.all()


def test_alpha_is_validity_and_not_colour(tmp_path):
    image = ramp(32, 32, 4)
    image[3] = 255
    image[3, :, 16:] = 0
    path = written(tmp_path / "a.tif", image, photometric="RGB", alpha="YES")
    with open_dataset(path) as dataset:
        grid = grid_of(dataset)
    with Raster([path], grid) as raster:
        pixels, valid = raster.read(grid.window)
    assert pixels.shape[0] == 3 and valid[:, :16].all() and not valid[:, 16:].any()


def test_grids_are_aligned_when_offset_by_whole_pixels_only(tmp_path):
    grids = []
    for name, west in (("a", 0.0), ("b", 12.0), ("c", 12.4)):
        with open_dataset(written(tmp_path / f"{name}.tif", ramp(), west=west)) as dataset:
            grids.append(grid_of(dataset))
    assert is_aligned(grids[0], grids[1]) and not is_aligned(grids[0], grids[2])


def test_another_crs_and_a_finer_pixel_are_warped_onto_the_grid(tmp_path):
    smooth = np.add.outer(np.linspace(0, 100, 200), np.linspace(0, 100, 200))[None]
    smooth = smooth.astype(np.uint8)
    place = {"west": 600_000.0, "north": 6_600_000.0}
    coarse = written(tmp_path / "a.tif", smooth[:, ::4, ::4], gsd=4.0, **place)
    fine = written(tmp_path / "b.tif", smooth, gsd=1.0, **place)
    grid = common_grid([coarse], fine, whole_before=True)
    with Raster([fine], grid) as raster:
        pixels, valid = raster.read(grid.window)
    assert valid.all() and np.abs(pixels - smooth[:, 2::4, 2::4]).max() <= 2
    with rasterio.open(coarse) as source:
        from rasterio.warp import calculate_default_transform, reproject

        to, cols, rows = calculate_default_transform(
            source.crs, "EPSG:32631", source.width, source.height, *source.bounds
        )
        turned = np.zeros((1, rows, cols), np.uint8)
        reproject(rasterio.band(source, 1), turned, dst_transform=to, dst_crs="EPSG:32631")
    other = written(tmp_path / "c.tif", turned, crs="EPSG:32631", transform=to, nodata=0)
    with Raster([other], grid) as raster:
        pixels, valid = raster.read(grid.window)
    inner = (slice(10, 40), slice(10, 40))
    assert valid[inner].all()
    assert np.abs(pixels[0][inner] - smooth[0, ::4, ::4][inner]).mean() < 2


def test_images_that_share_no_ground_are_told_apart(tmp_path):
    a = written(tmp_path / "a.tif", ramp())
    b = written(tmp_path / "b.tif", ramp(), west=5_000.0)
    with pytest.raises(NoOverlap, match="share no ground"):
        common_grid([a], b, whole_before=False)
