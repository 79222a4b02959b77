"""Image files that misbehave, on their whole way through the service: a dead letter, never more."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from daemon.announce import event_bytes, item_of, when
from daemon.service import Service, handled
from detectors.errors import ImageTooLarge, TruncatedImage, UnreadableImage, WrongCrs
from detectors.raster import Raster, grid_of, open_dataset
from schemas.policy import Sensor
from tests.faults.inputs import is_sentence
from tests.faults.tally import tally
from tests.scenes import FLOWN_AFTER, prepared
from tests.test_raster import ramp, written
from updater.review import dead_letters
from updater.store import Store
from updater.verify import verify

ROOT = Path(__file__).parents[2]
VRT = (
    '<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:2154</SRS>'
    "<GeoTransform>0, 1, 0, 100, 0, -1</GeoTransform>"
    '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{source}'
    "</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
)


def sparse(path: Path, side: int) -> None:
    """A GeoTIFF that declares side² pixels in a few hundred bytes to some kB."""
    blocks = {"tiled": True, "blockxsize": 16_384, "blockysize": 16_384}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=side,
        height=side,
        count=1,
        dtype="uint8",
        crs="EPSG:2154",
        sparse_ok=True,
        transform=rasterio.transform.from_origin(5e5, 6.3e6, 0.2, 0.2),
        **blocks,
    ):
        pass


def one_block(path: Path) -> None:
    """A GeoTIFF in a single block of nearly a gigabyte, padded so that its bytes could be there."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=30_000,
        height=30_000,
        count=1,
        dtype="uint8",
        crs="EPSG:2154",
        sparse_ok=True,
        tiled=True,
        blockxsize=30_000,
        blockysize=30_000,
        compress="deflate",
        transform=rasterio.transform.from_origin(5e5, 6.3e6, 0.2, 0.2),
    ):
        pass
    os.truncate(path, 1 << 20)


def flipped(path: Path, good: Path, share: float) -> None:
    """One byte turned over, so far into the file."""
    body = bytearray(good.read_bytes())
    body[int(share * (len(body) - 1))] ^= 0xFF
    path.write_bytes(body)


def cut(path: Path, good: Path, share: float) -> None:
    path.write_bytes(good.read_bytes()[: int(share * good.stat().st_size)])


def damaged(folder: Path, good: Path) -> dict[str, tuple[Path, set[str]]]:
    """Files that misbehave by name, each with the reasons it may be refused for."""
    folder.mkdir()
    unreadable, broken = {"unreadable-image"}, {"unreadable-image", "truncated-image"}
    found = {}

    def file(name: str, reasons: set[str]) -> Path:
        found[name] = (folder / f"{name}.tif", reasons)
        return found[name][0]

    file("zero", unreadable).write_bytes(b"")
    file("text", unreadable).write_text("This is no image.\n")
    file("zeros", unreadable).write_bytes(bytes(1 << 20))
    file("vrt-passwd", unreadable).write_text(VRT.format(source="/etc/passwd"))
    file("vrt-image", unreadable).write_text(VRT.format(source=good))
    file("folder", {"asset-refused"}).mkdir()
    os.mkfifo(file("pipe", {"asset-refused"}))
    sparse(file("absurd", {"image-too-large"}), 300_000)
    sparse(file("empty", {"truncated-image"}), 40_000)
    one_block(file("one-block", {"image-too-large"}))
    for share in (0.0005, 0.01, 0.2, 0.5, 0.9, 0.999):
        cut(file(f"cut-{share}", broken | {"wrong-crs", "no-overlap"}), good, share)
    flipped(file("magic", unreadable), good, 0.0)
    return found


def told(inbox: Path, good: Path, name: str, href: str, **more: object) -> None:
    """Drop the event of an image that is announced by hand."""
    item = item_of(good, acquired=when(FLOWN_AFTER), sensor=Sensor.PVA, departement="D032")
    item.id = f"pva-{name}"
    image = item.assets["image"]
    image.href, image.extra_fields = href, dict(more)
    inbox.mkdir(exist_ok=True)
    (inbox / f"{name}.json").write_bytes(event_bytes(item)[1])


def run(settings, progress=None):
    service = Service(settings, once=True, progress=progress)
    service.run()
    return handled(service)


def letters(settings) -> dict[str, object]:
    with Store.open(settings.db[0]) as store:
        assert verify(store, deep=True).valid
        found = {letter.origin.path.removesuffix(".json"): letter for letter in dead_letters(store)}
    assert all(is_sentence(letter.message) for letter in found.values())
    return found


@pytest.fixture(scope="module")
def ready(tmp_path_factory, small_scene):
    folder = tmp_path_factory.mktemp("ready")
    prepared(folder, small_scene)
    return folder


@pytest.fixture
def settings(ready, tmp_path, small_scene):
    from daemon.config import HttpSettings, Settings

    shutil.copy(ready / "D032.duckdb", tmp_path / "D032.duckdb")
    return Settings(
        db=[tmp_path / "D032.duckdb"],
        inbox=tmp_path / "inbox",
        outbox=tmp_path / "outbox",
        http=HttpSettings(enabled=False),
        device="cpu",
    )


def test_every_file_that_misbehaves_is_kept_with_its_reason(settings, tmp_path, small_scene):
    files = damaged(tmp_path / "images", small_scene.after)
    for name, (path, _) in files.items():
        told(settings.inbox, small_scene.after, name, path.as_uri())
    counts = run(settings)
    assert counts["dead_lettered"] == counts["received"] == len(files)
    found = letters(settings)
    for name, (_, reasons) in files.items():
        assert found[name].reason in reasons, f"{name}: {found[name].message}"
    assert {path.stem for path in (settings.inbox / "failed").iterdir()} == set(files)
    tally("image file that misbehaves, service", tried=len(files))


def test_roots_hold_for_the_service(settings, tmp_path, small_scene):
    inside = tmp_path / "ortho"
    inside.mkdir()
    (inside / "link.tif").symlink_to(small_scene.after)
    closed = settings.model_copy(update={"asset_roots": [inside]})
    told(closed.inbox, small_scene.after, "link", (inside / "link.tif").as_uri())
    told(closed.inbox, small_scene.after, "direct", small_scene.after.as_uri())
    run(closed)
    assert {letter.reason for letter in letters(closed).values()} == {"asset-refused"}


@pytest.mark.parametrize("stage", ["read", "detect"])
def test_an_image_that_changes_while_it_is_judged_commits_nothing(
    settings, tmp_path, small_scene, stage
):
    image = tmp_path / "after.tif"
    shutil.copy(small_scene.after, image)
    told(settings.inbox, small_scene.after, "moving", image.as_uri())
    seen = []

    def progress(name: str, done: int, total: int) -> None:
        seen.append(name)
        if name == stage and seen.count(stage) == 1:
            with image.open("r+b") as stream:  # the sender writes it again, in place
                stream.seek(-10, os.SEEK_END)
                stream.write(b"\0" * 10)

    assert run(settings, progress)["dead_lettered"] == 1, set(seen)
    assert stage in seen
    assert letters(settings)["moving"].reason == "asset-changed"
    with Store.open(settings.db[0]) as store:
        for table in ("events", "alerts", "retirements", "lineage"):
            assert store.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
        (retry,) = dead_letters(store)
    # delivered whole, the same event has its effect
    from daemon.retry import back_to_inbox

    shutil.copy(small_scene.after, image)
    back_to_inbox(retry, settings.inbox)
    assert run(settings)["processed"] == 1
    with Store.open(settings.db[0]) as store:
        assert store.execute("SELECT count(*) FROM events").fetchone() == (1,)
    tally("image changed while it was judged, service", tried=1)


def test_what_lies_beside_an_image_is_not_opened(tmp_path):
    secret = written(tmp_path / "secret.tif", ramp(32, 32, 1))
    path = written(tmp_path / "image.tif", ramp(64, 64, 1))
    half = VRT.format(source=secret).replace('Size="64"', 'Size="32"')
    for suffix in (".ovr", ".msk"):
        path.with_name(path.name + suffix).write_text(half)
    path.with_name(path.name + ".aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{secret}</MDI>'
        '</Metadata><PAMRasterBand band="1"><Description>secret</Description></PAMRasterBand>'
        "</PAMDataset>"
    )
    with open_dataset(path) as dataset:
        assert dataset.overviews(1) == []
        assert dataset.files == [str(path)] and dataset.descriptions == (None,)
        grid = grid_of(dataset)
    with Raster([path], grid) as raster:
        assert raster.read(grid.window)[1].all()


def test_declared_sizes_are_judged_before_anything_is_allocated(tmp_path):
    sparse(tmp_path / "a.tif", 300_000)
    with pytest.raises(ImageTooLarge, match="cut it into tiles"):
        open_dataset(tmp_path / "a.tif")
    sparse(tmp_path / "b.tif", 40_000)
    with pytest.raises(TruncatedImage, match="with its pixels"):
        open_dataset(tmp_path / "b.tif")
    one_block(tmp_path / "c.tif")
    with pytest.raises(ImageTooLarge, match="one block"):
        open_dataset(tmp_path / "c.tif")
    flat = written(tmp_path / "d.tif", ramp(), transform=rasterio.Affine(0, 0, 5, 0, 0, 9))
    with pytest.raises(WrongCrs, match="without a size"):
        open_dataset(flat)


def test_a_good_but_empty_looking_image_is_not_mistaken_for_a_truncated_one(tmp_path):
    """A black tile compresses a thousandfold and is still an image."""
    black = ramp(2048, 2048, 1) * 0
    path = written(tmp_path / "black.tif", black, compress="deflate", tiled=True, nodata=0)
    with open_dataset(path) as dataset:
        assert dataset.shape == (2048, 2048)


def test_another_format_under_the_name_of_an_image_is_unreadable(tmp_path):
    path = tmp_path / "a.tif"
    for body in (json.dumps({"type": "gdal_streamed_alg"}), "<OGRVRTDataSource/>", "NITF02.10"):
        path.write_text(body)
        with pytest.raises(UnreadableImage):
            open_dataset(path)


def fuzzed(count: int, seed: int, folder: Path) -> int:
    """Images gone wrong, in a process of their own: a crash in native code is a failure here."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz_images", str(folder), str(count), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return int(done.stdout.split()[0])


def test_some_hundred_images_gone_wrong_are_pixels_or_sentences(tmp_path):
    tally("mutated image file", tried=fuzzed(300, 1, tmp_path))


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_ten_thousand_images_gone_wrong_are_pixels_or_sentences(tmp_path):
    tally("mutated image file", tried=fuzzed(10_000, random.Random(2).randrange(10**6), tmp_path))
