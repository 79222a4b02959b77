"""Pictures of alerts on real files with known ground: right place and colours, never an error."""

import io
import itertools
import json
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import Transformer
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from shapely.geometry import Polygon, box

from daemon.chip_words import Language, shortened
from daemon.chips import (
    HALO,
    LINE,
    PANEL,
    SIDE_PX,
    Picture,
    best_of,
    draw_alert,
    scale_bar,
)
from daemon.config import HttpSettings
from daemon.http import HttpServer, application
from daemon.metrics import Metrics
from daemon.pictures import Drawer, PictureFolder
from daemon.relay import FolderCarrier, FolderChannel, relay_once
from daemon.subscribers import SubscriberRelay
from detectors.quicklook import NO_DATA
from schemas.legal import LegalStatus
from schemas.policy import Sensor
from schemas.subscription import ChannelKind, Subscription
from updater.alerts import Look, raised, seen_again
from updater.commit import add_image, alert_row, write_alert, write_outbox
from updater.crs import reproject
from updater.errors import NotFound
from updater.reads import ImageRecord
from updater.review import reject_alert
from updater.store import Store
from updater.subscriptions import new_id, save
from updater.types import Side, Sighting

CRS = "EPSG:2154"
X, Y = 500_000.0, 6_280_000.0
"""A place in the Gers."""
SHAPE = Polygon([(-20, -10), (20, -10), (20, 10), (0, 10), (0, 0), (-20, 0)])
"""Forty metres by twenty, its north-western quarter left out."""
OUTLINE = Polygon([(X + x, Y + y) for x, y in SHAPE.exterior.coords])
GRASS, ROOF, MARK = (90, 130, 70), (220, 60, 40), (240, 240, 240)
BEFORE, AFTER = datetime(2021, 7, 2, 12, tzinfo=UTC), datetime(2024, 6, 18, 12, tzinfo=UTC)
LATE = AFTER + timedelta(days=100)
"""A flight whose other tiles are not there."""
SIDE_M = 80.0
"""Of the ground shown: twice the outline's width."""


def colours(x, y, *, built):
    """The truth: grass, a bright mark north-west of the middle, and a roof where it is built."""
    ground = np.broadcast_to(np.array(GRASS).reshape(3, 1, 1), (3, *x.shape)).copy()
    for shape, colour in (((-30, 20, -20, 30), MARK), *(((-20, -10, 20, 10), ROOF),) * built):
        west, south, east, north = shape
        inside = (x - X >= west) & (x - X < east) & (y - Y >= south) & (y - Y < north)
        if colour is ROOF:
            inside &= ~((x < X) & (y >= Y))
        ground[:, inside] = np.array(colour)[:, None]
    return ground


def painted(path, *, built, gsd=0.2, frame=(-60, -60, 60, 60), crs=CRS, dtype="uint8", **profile):
    """A GeoTIFF of the truth; ``frame``: metres around the place. Gives its footprint."""
    west, south, east, north = reproject(box(*frame), CRS, CRS).bounds
    bounds = reproject(box(X + west, Y + south, X + east, Y + north), CRS, crs).bounds
    cols = round((bounds[2] - bounds[0]) / gsd)
    rows = round((bounds[3] - bounds[1]) / gsd)
    transform = from_origin(bounds[0], bounds[3], gsd, gsd)
    col, row = np.meshgrid(np.arange(cols) + 0.5, np.arange(rows) + 0.5)
    x, y = transform @ (col, row)
    if crs != CRS:
        x, y = Transformer.from_crs(crs, CRS, always_xy=True).transform(x, y)
    pixels = colours(x, y, built=built)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=cols,
        height=rows,
        count=3,
        dtype=dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as out:
        out.write(pixels.astype(dtype))
    return reproject(box(*bounds), crs, CRS)


def known(store, path, acquired, *, footprint, gsd=0.2, sensor=Sensor.PVA, item=None):
    """Tell the store of an image."""
    record = ImageRecord(item or path.stem, path, sensor, acquired, gsd, footprint)
    add_image(store, record)
    return record


def told(store, records):
    with store.transaction() as cursor:
        for record in records:
            write_alert(cursor, record, event="e", now=store.clock())
            write_outbox(cursor, [alert_row(store, record)], store.clock())


def alerted(
    store, *, reference="before", acquisition="after", sensor=Sensor.PVA, outline=OUTLINE, again=()
):
    """An alert in the store and the outbox; ``again``: (item, acquired) that saw it too."""

    def look(item, acquired):
        return Look(item, sensor, acquired, acquired, "map-guided/1", reference)

    was = Side("CS2.2.1", "US1.1", LegalStatus.NON_ARTIF)
    seen = Sighting(was, Side("CS1.1.1.1", "US5", LegalStatus.ARTIF), 0.95, 0.8, ("P",), outline)
    record = raised(seen, look(acquisition, AFTER))
    for item, acquired in again:
        record = seen_again(record, seen, look(item, acquired))
    told(store, [record])
    return record


@pytest.fixture
def store(tmp_path):
    with Store.create(
        tmp_path / "D032.duckdb", territory="D032", crs=CRS, millesime=2021
    ) as opened:
        yield opened


@pytest.fixture
def pair(store, tmp_path):
    """Both images, known."""
    for name, built, acquired in (("before", False, BEFORE), ("after", True, AFTER)):
        path = tmp_path / f"{name}.tif"
        known(store, path, acquired, footprint=painted(path, built=built))
    return tmp_path / "before.tif", tmp_path / "after.tif"


def read(chips, picture):
    return np.asarray(Image.open(io.BytesIO(chips.png(picture)))).astype(int)


def dates(store, record, **options):
    """The panels before and after as arrays."""
    chips = draw_alert(store, record.id, **options)
    return read(chips, Picture.BEFORE), read(chips, Picture.AFTER)


def at(panel, x, y, side=SIDE_M):
    """The colour at metres east and north of the middle."""
    return panel[round(SIDE_PX * (0.5 - y / side)), round(SIDE_PX * (0.5 + x / side))]


def hatched(panel):
    grey = (np.ptp(panel, axis=-1) == 0) & np.isin(panel[..., 0], NO_DATA)
    return float(grey.mean())


def is_red(colour):
    return colour[0] > colour[1] + 60


def test_the_roof_is_in_the_picture_after_and_not_before(store, pair):
    record = alerted(store)
    chips = draw_alert(store, record.id)
    before, after = read(chips, Picture.BEFORE), read(chips, Picture.AFTER)
    assert before.shape == after.shape == (SIDE_PX, SIDE_PX, 3)
    assert chips.side_m == pytest.approx(SIDE_M)
    for x, y in ((10, 5), (10, -5), (-10, -5), (18, 8), (-18, -8)):
        assert is_red(at(after, x, y)) and not is_red(at(before, x, y))
    for x, y in ((-10, 5), (22, 0), (0, 12), (0, -12), (-22, -5)):  # just outside
        assert not is_red(at(after, x, y))
    assert (at(before, -25, 25) > 200).all() and (at(after, -25, 25) > 200).all()  # the mark


def test_the_outline_stands_on_both_and_nowhere_else(store, pair):
    for panel in dates(store, alerted(store)):
        line = (panel == LINE).all(axis=-1)
        for x, y in ((20, 5), (-20, -5), (10, 10), (10, -10), (0, 5), (-10, 0)):
            row, col = round(SIDE_PX * (0.5 - y / SIDE_M)), round(SIDE_PX * (0.5 + x / SIDE_M))
            assert line[row - 2 : row + 3, col - 2 : col + 3].any(), (x, y)
        rows, cols = np.nonzero(line)
        assert abs(cols.min() - 128) <= 2 and abs(cols.max() - 384) <= 2
        assert abs(rows.min() - 192) <= 2 and abs(rows.max() - 320) <= 2
        row = round(SIDE_PX * (0.5 - 5 / SIDE_M))
        assert not line[row, round(SIDE_PX * (0.5 - 10 / SIDE_M))]
        assert (panel[row, 385:389] == HALO).all(axis=-1).any()  # dark beside bright


def test_one_stretch_serves_both_dates(store, pair):
    before, after = dates(store, alerted(store))
    for x, y in ((-35, -35), (35, 35), (30, -20), (-25, 25)):
        assert np.array_equal(at(before, x, y), at(after, x, y))
    grass = at(after, 30, -20)
    assert grass[1] > grass[0] > grass[2]  # hues stay


def test_unlike_pixels_and_another_crs_show_the_same_ground(store, pair, tmp_path):
    utm = tmp_path / "utm.tif"
    footprint = painted(utm, built=True, gsd=0.5, crs="EPSG:32631")
    known(store, utm, LATE, footprint=footprint, gsd=0.5)
    assert abs(rasterio.open(utm).bounds.left - X) > 10_000  # truly elsewhere in numbers
    before, after = dates(store, alerted(store, acquisition="utm"))
    assert hatched(after) == 0
    differ = np.abs(before - after).max(axis=-1) > 40
    row, col = np.nonzero(differ)
    x, y = (col / SIDE_PX - 0.5) * SIDE_M, (0.5 - row / SIDE_PX) * SIDE_M
    roof = SHAPE.buffer(0.6)  # a pixel of the coarser image
    outside = ~np.array([roof.contains(p) for p in map(_point, x, y)])
    mark = (np.abs(x + 25) < 5.6) & (np.abs(y - 25) < 5.6)
    assert differ.mean() > 0.06 and (outside & ~mark).sum() == 0
    assert (outside & mark).sum() < 300  # its border alone
    assert is_red(at(after, 19, 9)) and is_red(at(after, -19, -1)) and not is_red(at(after, -5, 5))


def _point(x, y):
    return box(x, y, x, y).centroid


def test_an_edge_is_hatched_until_another_tile_of_the_flight_fills_it(store, pair, tmp_path):
    west, east = tmp_path / "west.tif", tmp_path / "east.tif"
    known(store, west, LATE, footprint=painted(west, built=True, frame=(-60, -60, 10, 60)))
    record = alerted(store, acquisition="west")
    _, after = dates(store, record)
    assert 0.3 < hatched(after) < 0.4
    assert is_red(at(after, 5, 5)) and not is_red(at(after, 15, 5))
    footprint = painted(east, built=True, frame=(0, -60, 60, 60))
    known(store, east, LATE - timedelta(days=2), footprint=footprint)
    assert hatched(dates(store, record)[1]) > 0.3  # another day is another picture
    known(store, east, LATE, footprint=footprint)
    _, after = dates(store, record)
    assert hatched(after) == 0 and is_red(at(after, 15, 5))


def test_declared_nodata_is_hatched_and_kept_out_of_the_stretch(store, pair, tmp_path):
    holed = tmp_path / "holed.tif"
    footprint = painted(holed, built=True, nodata=0)
    with rasterio.open(holed, "r+") as image:
        image.write(np.zeros((3, 300, 600), np.uint8), window=((0, 300), (0, 600)))
    known(store, holed, LATE, footprint=footprint)
    before, after = dates(store, alerted(store, acquisition="holed"))
    assert 0.4 < hatched(after) < 0.51 and hatched(after[300:]) == 0
    assert np.array_equal(at(before, 30, -30), at(after, 30, -30))


def test_an_image_without_data_here_says_so(store, pair, tmp_path):
    empty = tmp_path / "empty.tif"
    footprint = painted(empty, built=True, frame=(100, 100, 120, 120))
    known(store, empty, LATE, footprint=box(X - 60, Y - 60, X + 60, Y + 60))
    _, after = dates(store, alerted(store, acquisition="empty"))
    assert hatched(after) > 0.8 and footprint.area > 0


def spoil(path, how):
    if how == "gone":
        path.unlink()
    elif how == "junk":
        path.write_bytes(b"no image at all" * 100)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["gone", "junk", "cut", "folder", "unknown"])
def test_what_cannot_be_shown_is_a_grey_panel_that_says_so(store, pair, how):
    spoil(pair[0], how)
    record = alerted(store, reference=None if how == "unknown" else "before")
    before, after = dates(store, record)
    plain = (before == PANEL).all(axis=-1)
    assert plain.mean() > 0.9
    quarter = before[: SIDE_PX // 4]
    assert (quarter.max(axis=-1) < 80).sum() > 200  # the sentence
    assert (before == LINE).all(axis=-1).sum() > 300 and is_red(at(after, 10, 5))
    french = draw_alert(store, record.id).png(Picture.BEFORE)
    assert french != draw_alert(store, record.id, language=Language.EN).png(Picture.BEFORE)


def test_both_images_may_be_missing(store, pair):
    for path in pair:
        path.unlink()
    chips = draw_alert(store, alerted(store).id)
    assert [line[0][:5] for line in chips.captions] == ["Avant", "Après"]
    assert (read(chips, Picture.AFTER) == PANEL).all(axis=-1).mean() > 0.9


def test_no_alert_no_picture(store):
    with pytest.raises(NotFound, match="AL0000"):
        draw_alert(store, "AL" + 20 * "0")


def test_captions_and_scale_stand_under_the_pictures(store, pair):
    record = alerted(store)
    chips = draw_alert(store, record.id)
    assert chips.captions[0] == ("Avant – photo aérienne, 02/07/2021", "before, pixel de 0,2 m")
    english = draw_alert(store, record.id, language=Language.EN)
    assert english.captions[1] == ("After – aerial photo, 2024-06-18", "after, 0.2 m pixels")
    wide = read(chips, Picture.CHIPS)
    assert wide.shape == (SIDE_PX + 44, 2 * SIDE_PX + 10, 3)
    for picture, col in ((Picture.BEFORE, 0), (Picture.AFTER, SIDE_PX + 10)):
        assert np.array_equal(wide[:SIDE_PX, col : col + SIDE_PX], read(chips, picture))
        strip = wide[SIDE_PX:, col : col + SIDE_PX].max(axis=-1)
        assert (strip[:, :300] < 128).sum() > 200  # words
        bar = max((strip[row, 400:] < 128).sum() for row in range(30, 44))  # the row of the bar
        assert bar == pytest.approx(10 / SIDE_M * SIDE_PX, abs=3)
    assert chips.png(Picture.CHIPS) == draw_alert(store, record.id).png(Picture.CHIPS)
    assert shortened("pva-20240618-0123456789abcdef") == "pva-20240618…89abcdef"
    assert [scale_bar(s) for s in (60, 80, 300, 1_000, 12_000)] == [10, 10, 50, 200, 2_000]


def stack(path, *, built):
    """A Sentinel-2 stack, blue first, 3 km wide."""
    names = ("B02", "B03", "B04", "B08")
    ground, roof = (500, 800, 600, 3500), (1200, 1500, 2400, 2600)
    pixels = np.broadcast_to(np.array(ground).reshape(4, 1, 1), (4, 300, 300)).copy()
    pixels[:, 20:40, 20:40] += 300  # something beside, at both dates
    if built:
        pixels[:, 145:155, 145:155] = np.array(roof).reshape(4, 1, 1)
    transform = from_origin(X - 1_500, Y + 1_500, 10, 10)
    size = {"width": 300, "height": 300, "count": 4, "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", crs=CRS, transform=transform, **size) as out:
        out.write(pixels.astype(np.uint16))
        out.descriptions = names
    return box(X - 1_500, Y - 1_500, X + 1_500, Y + 1_500)


def test_sentinel_2_is_shown_in_true_colour_and_whole_pixels(store, tmp_path):
    for name, built, acquired in (("s2-old", False, BEFORE), ("s2-new", True, AFTER)):
        path = tmp_path / f"{name}.tif"
        footprint = stack(path, built=built)
        known(store, path, acquired, footprint=footprint, gsd=10, sensor=Sensor.SENTINEL_2)
    record = alerted(
        store,
        reference="s2-old",
        acquisition="s2-new",
        sensor=Sensor.SENTINEL_2,
        outline=box(X - 50, Y - 50, X + 50, Y + 50),
    )
    chips = draw_alert(store, record.id)
    assert chips.side_m == pytest.approx(1_000)
    before, after = read(chips, Picture.BEFORE), read(chips, Picture.AFTER)
    roof, field = at(after, 0, 0, 1_000), at(before, 0, 0, 1_000)
    assert roof[0] > roof[1] > roof[2]  # red roof, in spite of the order in the file
    assert field[1] == max(field) and field[1] > field[0] >= field[2]
    kinds = np.unique(after.reshape(-1, 3), axis=0)
    assert len(kinds) == 4  # field, roof, line, halo: nothing in between
    assert "10 m" in chips.captions[1][1] and "Sentinel-2" in chips.captions[1][0]


def test_bands_by_their_colours_and_a_single_one_in_grey(store, pair, tmp_path):
    swapped = tmp_path / "bgr.tif"
    footprint = painted(swapped, built=True)
    with rasterio.open(swapped, "r+") as image:
        image.write(image.read()[::-1])
        image.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    known(store, swapped, LATE, footprint=footprint)
    assert is_red(at(dates(store, alerted(store, acquisition="bgr"))[1], 10, 5))
    grey = tmp_path / "grey.tif"
    with rasterio.open(swapped) as image:
        profile = image.profile | {"count": 1, "photometric": "MINISBLACK", "interleave": "band"}
        with rasterio.open(grey, "w", **profile) as out:
            out.write(image.read(3), 1)
    known(store, grey, LATE, footprint=footprint)
    _, after = dates(store, alerted(store, acquisition="grey"))
    shade = at(after, 10, 5)
    assert np.ptp(shade) == 0 and shade[0] > at(after, 30, -20)[0] + 60


def test_numbers_of_unlike_type_are_not_forced_into_one_stretch(store, pair, tmp_path):
    deep = tmp_path / "deep.tif"
    footprint = painted(deep, built=True, dtype="uint16")
    with rasterio.open(deep, "r+") as image:
        image.write(image.read() * 40)
    known(store, deep, LATE, footprint=footprint)
    before, after = dates(store, alerted(store, acquisition="deep"))
    assert at(before, 30, -20).max() > 60 and is_red(at(after, 10, 5))


def test_the_finest_and_then_the_newest_image_on_disk_is_shown(store, pair, tmp_path):
    def image(name, gsd, days, *, there=True):
        path = tmp_path / f"{name}.tif"
        if there:
            path.touch()
        footprint = box(X, Y, X + 1, Y + 1)
        return ImageRecord(name, path, Sensor.PVA, AFTER + timedelta(days=days), gsd, footprint)

    coarse, old = image("coarse", 10, 9), image("old", 0.25, 1)
    new, gone = image("new", 0.3, 5), image("gone", 0.2, 7, there=False)
    assert best_of([coarse, old, new, gone]) is new
    assert best_of([coarse, gone]) is coarse and best_of([gone]) is gone and best_of([]) is None
    later = tmp_path / "later.tif"
    known(store, later, AFTER + timedelta(days=60), footprint=painted(later, built=True))
    record = alerted(store, again=[("later", AFTER + timedelta(days=60)), ("none", AFTER)])
    assert draw_alert(store, record.id).captions[1][1].startswith("later")


def test_a_hole_in_the_alert_is_outlined(store, pair):
    ring = Polygon(
        [(X - 20, Y - 20), (X + 20, Y - 20), (X + 20, Y + 20), (X - 20, Y + 20)],
        [[(X - 8, Y - 8), (X + 8, Y - 8), (X + 8, Y + 8), (X - 8, Y + 8)]],
    )
    before, _ = dates(store, alerted(store, outline=ring))
    line = (before == LINE).all(axis=-1)
    place = round(SIDE_PX * (0.5 + 8 / SIDE_M))
    assert line[SIDE_PX // 2, place - 2 : place + 3].any()


MEASURE = """
import resource, sys, time
from pathlib import Path
from daemon.chips import Picture, draw_alert
from updater.store import Store
with Store.open(Path(sys.argv[1])) as store:
    draw_alert(store, sys.argv[2])
    base, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    chips = draw_alert(store, sys.argv[3])
    for picture in Picture:
        chips.png(picture)
    seconds = time.monotonic() - started
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024, seconds)
"""


def test_a_huge_image_costs_no_more_than_the_picture(store, tmp_path):
    side = 20_000
    transform = from_origin(X - side / 10, Y + side / 10, 0.2, 0.2)
    size = {"width": side, "height": side, "count": 3, "dtype": "uint8"}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "sparse_ok": True}
    for name, acquired in (("before", BEFORE), ("after", AFTER)):
        path = tmp_path / f"{name}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", crs=CRS, transform=transform, **size, **tiles
        ) as out:
            out.write(np.full((3, 400, 400), 200, np.uint8), window=((9_800, 10_200),) * 2)
        assert path.stat().st_size < 10_000_000
        half = side / 10
        known(store, path, acquired, footprint=box(X - half, Y - half, X + half, Y + half))
    small = alerted(store, outline=box(X - 20, Y - 20, X + 20, Y + 20))
    large = alerted(store, outline=box(X - 1_000, Y - 1_000, X + 1_000, Y + 1_000))
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(store.path), small.id, large.id],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    grown, seconds = map(float, done.stdout.splitlines()[-1].split())
    assert grown < 400  # MiB; one of the images is 1 200
    assert seconds < 30


class Running:
    """The little that HTTP knows of a service."""

    def __init__(self):
        self.metrics, self.alive, self.ready = Metrics(), True, True


@pytest.fixture
def url(store):
    server = HttpServer(application(Running(), [store]), HttpSettings(host="127.0.0.1", port=0))
    server.start()
    (listening,) = server._server.servers
    yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/alerts"
    server.stop()


def get(url, **headers):
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, dict(answer.headers.items()), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers.items()), error.read()


def test_pictures_are_served_once_and_then_304(store, pair, url):
    record = alerted(store)
    for picture in Picture:
        status, headers, body = get(f"{url}/{record.id}/{picture}.png")
        assert status == 200 and headers["content-type"] == "image/png"
        assert body == draw_alert(store, record.id).png(picture)
        assert "max-age" in headers["cache-control"]
        status, again, nothing = get(
            f"{url}/{record.id}/{picture}.png", **{"If-None-Match": headers["etag"]}
        )
        assert status == 304 and nothing == b"" and again["etag"] == headers["etag"]
    address = f"{url}/{record.id}/chips.png"
    tag = get(address)[1]["etag"]
    status, headers, body = get(f"{address}?lang=en", **{"If-None-Match": tag})
    assert status == 200 and headers["etag"] != tag
    pair[0].unlink()  # another content, another tag
    assert get(address, **{"If-None-Match": tag})[0] == 200


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("AL" + 20 * "0" + "/chips.png", 404, "There is no alert AL0"),
        ("AL" + 20 * "z" + "/chips.png", 422, "pattern"),
        ("AL" + 19 * "0" + "/before.png", 422, "pattern"),
        ("AL" + 20 * "0" + "/other.png", 422, "chips"),
        ("AL" + 20 * "0" + "/chips.png?lang=de", 422, "lang"),
        ("..%2f..%2fetc%2fpasswd/chips.png", 404, "Not Found"),
    ],
)
def test_what_is_asked_for_wrongly_is_said(url, path, status, words):
    answered, _, body = get(f"{url}/{path}")
    assert answered == status and words in body.decode()


def millesimed(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_line_writes_the_picture(store, pair, tmp_path):
    record = alerted(store)
    expected = draw_alert(store, record.id, language=Language.EN).png(Picture.CHIPS)
    store.close()
    out = tmp_path / "pictures" / "alert.png"
    common = ("alerts", "show", record.id, "--db", store.path, "--lang", "en", "--json")
    done = millesimed(*common, "--picture", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == record.id and out.read_bytes() == expected
    assert [p.name for p in out.parent.iterdir()] == [out.name]  # nothing half written
    refused = millesimed(*common, "--picture", pair[0] / "alert.png")
    assert refused.returncode == 2 and "choose another file" in refused.stderr


def test_folders_get_pictures_beside_the_messages(store, pair, tmp_path):
    wanted = Subscription(id=new_id(), name="Auch", channel=ChannelKind.FOLDER, language="en")
    save(store, wanted)
    record = alerted(store)
    outbox = tmp_path / "outbox"
    assert relay_once([store], [FolderChannel(outbox)], Metrics()) == 1
    picture, pictures = outbox / "chips" / f"{record.id}.png", PictureFolder(outbox / "chips")
    assert pictures.once(store) == 1 and pictures.once(store) == 0
    assert picture.read_bytes() == draw_alert(store, record.id).png(Picture.CHIPS)
    relay = SubscriberRelay({ChannelKind.FOLDER: FolderCarrier(outbox / "subscriptions")})
    assert relay.once(store) == {ChannelKind.FOLDER: 1}
    mine = outbox / "subscriptions" / wanted.id
    assert {p.name for p in mine.iterdir()} == {f"{record.id}.geojson", f"{record.id}.png"}
    english = draw_alert(store, record.id, language=Language.EN).png(Picture.CHIPS)
    assert (mine / f"{record.id}.png").read_bytes() == english
    picture.unlink()
    reject_alert(store, record.id, reason="tent")
    assert relay_once([store], [FolderChannel(outbox)], Metrics()) == 1
    assert pictures.once(store) == 0 and not picture.exists()  # a withdrawal needs none


def test_a_picture_that_fails_holds_up_no_message(store, pair, tmp_path):
    wanted = Subscription(id=new_id(), name="Auch", channel=ChannelKind.FOLDER)
    save(store, wanted)
    record = alerted(store)
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    (outbox / "chips").write_text("in the way")
    mine = outbox / "subscriptions" / wanted.id
    (mine / f"{record.id}.png").mkdir(parents=True)  # likewise
    assert relay_once([store], [FolderChannel(outbox)], Metrics()) == 1
    assert (outbox / "alerts" / f"{record.id}.1.json").is_file()
    pictures = PictureFolder(outbox / "chips")
    assert [pictures.once(store), pictures.once(store)] == [0, 0]
    relay = SubscriberRelay({ChannelKind.FOLDER: FolderCarrier(outbox / "subscriptions")})
    assert relay.once(store) == {ChannelKind.FOLDER: 1}
    assert (mine / f"{record.id}.geojson").is_file()


@pytest.mark.parametrize(("busy", "rounds"), [(False, 12), (True, 1)])
def test_pictures_are_drawn_seldom_while_there_is_other_work(
    store, tmp_path, monkeypatch, busy, rounds
):
    clock, drawn = itertools.count(100), []
    monkeypatch.setattr("daemon.pictures.monotonic", lambda: next(clock))
    drawer = Drawer(tmp_path, lambda: False, lambda: busy)
    monkeypatch.setattr(PictureFolder, "some", lambda *_: drawn.append(1))
    for _ in range(12):  # drawing takes a second, and a second lies between
        drawer.some([store])
    assert len(drawn) == rounds
