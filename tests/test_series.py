"""The Sentinel-2 monitor: what is usual is learned, what is new is told, what is odd passes."""

import json
from datetime import UTC, datetime, timedelta
from time import perf_counter

import numpy as np
import pytest
from rasterio.transform import from_origin

from detectors.errors import BandlessImage, DamagedState, NoOverlap
from detectors.series import growing_days, observe
from detectors.series_model import CENTRE, NDVI, predict
from detectors.series_regions import CLEARED, MINERAL, looks_regions
from detectors.series_state import (
    BLOCK,
    LAYERS,
    SeriesState,
    block_name,
    blocks,
    day_of,
    load_state,
    save_state,
    settle,
)
from detectors.types import Grid
from schemas.nomenclature import CS_INDEX
from schemas.policy import PAVED

NAMES = ("B02", "B03", "B04", "B08", "B11", "B12")
MEADOW = np.array([350, 650, 450, 3600, 2200, 1150], np.float32)
PLANTS = np.array([280, 580, 340, 4300, 2050, 1000], np.float32)
SOIL = np.array([900, 1200, 1550, 2150, 2950, 2550], np.float32)
ASPHALT = np.array([850, 950, 1050, 1250, 1550, 1480], np.float32)
GRAVEL = np.array([1950, 2350, 2650, 3050, 3500, 3200], np.float32)
CLOUD = np.array([3000, 3050, 3050, 4300, 3250, 2400], np.float32)
SHADED = np.array([0.5, 0.45, 0.42, 0.38, 0.36, 0.35], np.float32)
WOOD = np.array([230, 450, 270, 3300, 1500, 680], np.float32)
SLASH = np.array([600, 850, 1050, 2000, 2800, 1950], np.float32)
FLOOD = np.array([800, 1000, 950, 550, 180, 120], np.float32)
START = datetime(2022, 3, 1, 10, 56, tzinfo=UTC)
SIDE = 20
GRID = Grid("EPSG:2154", from_origin(500_000, 6_300_000, 10, 10), (SIDE, SIDE), 0)
SITE = np.zeros((SIDE, SIDE), bool)
SITE[6:12, 5:12] = True
MEADOWS = np.full((SIDE, SIDE), CS_INDEX["CS2.2.1"], np.uint8)
FARMED = np.ones((SIDE, SIDE), bool)


def summer(day):
    return 0.5 + 0.5 * np.cos(2 * np.pi * (day - 150) / 365.25)


def season(day):
    """A meadow: green in summer, less so in winter."""
    return MEADOW * (1 - 0.3 * (1 - summer(day))) + 150 * (1 - summer(day))


def field(day):
    """A field under plants from March to July, bare from August on."""
    of_year = (START.timetuple().tm_yday + day) % 365
    return PLANTS if 60 < of_year < 210 else SOIL


def scene(number, ground, *, site=None, seed=0):
    rng = np.random.default_rng([seed, number])
    image = np.broadcast_to(ground[:, None, None], (6, SIDE, SIDE)).astype(np.float32).copy()
    if site is not None:
        image[:, SITE] = site[:, None]
    image *= 1 + rng.normal(0, 0.02, image.shape)
    return image.astype(np.float32)


def look_at(state, number, image, *, valid=None, cover=MEADOWS, farmed=FARMED, day=None):
    acquired = START + timedelta(days=10 * number if day is None else day)
    seen = np.ones((SIDE, SIDE), bool) if valid is None else valid
    return observe(
        state, image, NAMES, seen, acquired, acquisition=f"S2-{number}", cover=cover, farmed=farmed
    )


def fed(ground, looks, **more):
    """A state after so many looks, ten days apart, at ground that follows its year."""
    state = SeriesState.empty(GRID)
    for number in range(looks):
        state, _ = look_at(state, number, scene(number, ground(10 * number)), **more)
    return state


@pytest.fixture(scope="module")
def meadow():
    return fed(season, 50)


@pytest.fixture(scope="module")
def farm():
    return fed(field, 60)


def same(a, b):
    return all(np.array_equal(a.layers[n], b.layers[n]) for n in LAYERS) and (a.newest, a.seen) == (
        b.newest,
        b.seen,
    )


def test_the_fit_finds_the_season_it_was_shown(meadow):
    for day in (520, 600, 700):
        expected, spread = predict(meadow.layers["moments"], day_of(START + timedelta(days=day)))
        _, _, red, near, _, _ = season(day)
        true = (near - red) / (near + red)
        assert abs(expected[NDVI].mean() + CENTRE[NDVI] - true) < 0.03
        assert spread[NDVI].max() < 0.06


@pytest.mark.parametrize("material", [ASPHALT, GRAVEL])
@pytest.mark.parametrize("ground", ["meadow", "farm"])
def test_mineral_ground_is_told_from_its_first_look_on(request, ground, material):
    state, usual = request.getfixturevalue(ground), {"meadow": season, "farm": field}[ground]
    begun = len(state.seen)
    for number in range(begun, begun + 3):
        state, look = look_at(state, number, scene(number, usual(10 * number), site=material))
        (region,) = looks_regions(look, GRID)
        assert region.to_cs == PAVED and region.probability >= 0.67
        assert abs(region.geometry.area - SITE.sum() * 100) <= 0.25 * SITE.sum() * 100
    assert (
        look.began[SITE].min()
        == look.began[SITE].max()
        == day_of(START + timedelta(days=10 * begun))
    )
    assert not look.began[~SITE].any()


def test_it_stays_told_and_never_becomes_the_normal(meadow):
    state = meadow
    for number in range(50, 75):
        state, look = look_at(state, number, scene(number, season(10 * number), site=ASPHALT))
    assert look.probability[SITE].mean() > 0.67 and state.layers["run"][0][SITE].min() == 25
    assert np.array_equal(state.layers["count"][0][SITE], meadow.layers["count"][0][SITE])


def test_settled_ground_begins_again(meadow):
    state, _ = look_at(meadow, 50, scene(50, season(500), site=ASPHALT))
    fresh = settle(state, SITE)
    assert not fresh.layers["count"][0][SITE].any() and not fresh.layers["run"].any()
    assert fresh.layers["count"][0][~SITE].all() and state.layers["run"][0][SITE].all()
    _, look = look_at(fresh, 51, scene(51, season(510), site=ASPHALT))
    assert not look.valid[SITE].any() and look.valid[~SITE].all()


@pytest.mark.parametrize("odd", [CLOUD, "shadow", FLOOD])
def test_one_odd_look_passes_and_is_not_learned(meadow, odd):
    usual = season(500)
    odd = usual * SHADED if isinstance(odd, str) else odd
    state, _ = look_at(meadow, 50, scene(50, usual, site=odd))
    assert state.layers["run"][0][SITE].all()
    for number in (51, 52):
        state, look = look_at(state, number, scene(number, season(10 * number)))
        assert looks_regions(look, GRID) == [] and look.valid.all()
    assert not state.layers["run"].any() and not state.layers["began"].any()
    before, after = (s.layers["lowest"][2::3] for s in (meadow, state))
    assert np.abs(before - after)[:, SITE].max() < 0.06


def test_soil_that_is_bare_each_autumn_is_not_new(farm):
    state = farm
    for number in range(60, 96):
        state, look = look_at(state, number, scene(number, field(10 * number)))
        assert looks_regions(look, GRID) == []


def test_a_ploughed_meadow_is_doubted_until_nothing_grows_for_a_season(meadow):
    state, told = meadow, None
    for number in range(50, 90):
        state, look = look_at(state, number, scene(number, season(10 * number), site=SOIL))
        found = looks_regions(look, GRID)
        told = told or (number if found else None)
    began, when = START + timedelta(days=500), START + timedelta(days=10 * told)
    assert (when - began).days >= 150 and found[0].to_cs == MINERAL
    assert growing_days(np.array([day_of(began)]), day_of(when))[0] >= 150
    _, look = look_at(meadow, 50, scene(50, season(500), site=SOIL), farmed=np.zeros_like(FARMED))
    assert [r.to_cs for r in looks_regions(look, GRID)] == [MINERAL]


def test_a_crop_that_grows_again_closes_the_case_and_is_learned(meadow):
    state = meadow
    for number in range(50, 56):
        state, _ = look_at(state, number, scene(number, season(10 * number), site=SOIL))
    for number in range(56, 60):
        state, _ = look_at(state, number, scene(number, season(10 * number), site=PLANTS))
    assert not state.layers["run"].any()
    assert (state.layers["lowest"][2][SITE] + CENTRE[NDVI] < 0.25).all()


def test_trees_that_go_are_a_clearing_and_what_is_built_there_is_not():
    woods = np.full((SIDE, SIDE), CS_INDEX["CS2.1.1.1"], np.uint8)
    nobody = np.zeros_like(FARMED)
    state = fed(lambda _: WOOD, 45, cover=woods, farmed=nobody)
    for material, cover in ((SLASH, CLEARED), (GRAVEL, PAVED)):
        image = scene(45, WOOD, site=material)
        _, look = look_at(state, 45, image, cover=woods, farmed=nobody)
        assert [r.to_cs for r in looks_regions(look, GRID)] == [cover]


def test_what_the_map_calls_artificial_or_water_says_nothing(meadow):
    for code in ("CS1.1.1.1", "CS1.1.1.2", "CS1.1.2.1", "CS1.2.2"):
        cover = np.full((SIDE, SIDE), CS_INDEX[code], np.uint8)
        _, look = look_at(meadow, 50, scene(50, season(500), site=ASPHALT), cover=cover)
        assert not look.probability.any() and not look.clearing.any()


def test_without_enough_history_nothing_is_said():
    state = fed(season, 20)  # many looks, but half a year only
    _, look = look_at(state, 20, scene(20, season(200), site=ASPHALT))
    assert not look.enough.any() and not look.valid.any() and looks_regions(look, GRID) == []


def test_a_clouded_look_leaves_the_state_as_it_is(meadow):
    hidden = np.zeros((SIDE, SIDE), bool)
    state, look = look_at(meadow, 50, scene(50, season(500), site=CLOUD), valid=hidden)
    assert all(np.array_equal(state.layers[n], meadow.layers[n]) for n in LAYERS)
    assert not look.valid.any() and state.seen[-1] == "S2-50"


def test_snow_on_everything_says_nothing(meadow):
    snow = np.array([7800, 8000, 7900, 7600, 1000, 850], np.float32)
    state, look = look_at(meadow, 50, scene(50, snow))
    assert not look.valid.any()
    assert all(np.array_equal(state.layers[n], meadow.layers[n]) for n in LAYERS)


def test_nothing_given_is_changed_and_the_same_acquisition_counts_once(meadow):
    image = scene(50, season(500), site=ASPHALT)
    kept = {n: layer.copy() for n, layer in meadow.layers.items()}
    given = image.copy()
    once, first = look_at(meadow, 50, image)
    assert np.array_equal(image, given)
    assert all(np.array_equal(meadow.layers[n], kept[n]) for n in LAYERS)
    twice, again = look_at(once, 50, image)
    assert same(once, twice) and twice.layers["run"].max() == 1
    assert np.allclose(again.probability, first.probability, atol=0.05)
    assert not again.late and again.valid.all()


def test_an_older_image_joins_the_history_and_judges_nothing():
    numbers = list(range(45))
    ordered = fed(season, 45)
    state = SeriesState.empty(GRID)
    for number in [*numbers[:20], *numbers[21:], 20]:
        state, look = look_at(state, number, scene(number, season(10 * number)))
    assert look.late and not look.valid.any() and state.newest == ordered.newest
    assert np.array_equal(state.layers["count"], ordered.layers["count"])
    assert np.allclose(state.layers["moments"], ordered.layers["moments"], rtol=1e-4, atol=1e-4)
    assert np.array_equal(state.layers["lowest"], ordered.layers["lowest"])


def test_an_older_image_leaves_open_runs_alone(meadow):
    state, _ = look_at(meadow, 50, scene(50, season(500), site=ASPHALT))
    later, look = look_at(state, 99, scene(99, season(495)), day=495)
    assert look.late
    for name in ("run", "clean", "began", "first"):
        assert np.array_equal(later.layers[name], state.layers[name])
    assert np.array_equal(later.layers["count"][0][SITE], state.layers["count"][0][SITE])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, meadow):
    path = tmp_path / "block.safetensors"
    straight, stopped = meadow, meadow
    for number in range(50, 56):
        image = scene(number, season(10 * number), site=ASPHALT if number > 51 else None)
        straight, _ = look_at(straight, number, image)
        save_state(path, stopped)
        stopped, _ = look_at(load_state(path), number, image)
    assert same(straight, stopped)
    assert load_state(path).grid == GRID
    other = tmp_path / "other.safetensors"
    save_state(path, straight)
    save_state(other, stopped)
    assert path.read_bytes() == other.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, other.name]


def test_damaged_files_are_refused(tmp_path, meadow):
    path = tmp_path / "block.safetensors"
    save_state(path, meadow)
    content = path.read_bytes()
    for length in (0, 5, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedState, match="feed its acquisitions again"):
            load_state(path)
    altered = bytearray(content)
    altered[-100] ^= 1
    path.write_bytes(altered)
    with pytest.raises(DamagedState, match="altered"):
        load_state(path)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["series"] = header["__metadata__"]["series"].replace(
        '"version": 1', '"version": 9'
    )
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(DamagedState, match="version 9"):
        load_state(path)


def test_any_acquisition_falls_on_the_same_blocks():
    tile = Grid("EPSG:32631", from_origin(300_000, 4_900_020, 10, 10), (10_980, 10_980), 0)
    part = Grid("EPSG:32631", from_origin(351_230, 4_850_000, 10, 10), (700, 300), 0)
    whole = {block_name(b): b for b in blocks(tile)}
    assert 22**2 <= len(whole) <= 23**2
    for block in blocks(part):
        assert whole[block_name(block)] == block
        assert block.shape == (BLOCK, BLOCK) and block.transform.c % 5_120 == 0
    one = next(iter(whole.values()))
    assert [block_name(b) for b in blocks(one)] == [block_name(one)]
    west, north = tile.transform.c, tile.transform.f
    lefts = [b.transform.c for b in whole.values()]
    tops = [b.transform.f for b in whole.values()]
    assert min(lefts) <= west and max(lefts) + 5_120 >= west + 109_800
    assert max(tops) >= north and min(tops) - 5_120 <= north - 109_800


def test_a_cut_of_the_ground_is_judged_like_the_whole(meadow):
    """Each pixel depends on its neighbours only: halves agree with the whole but at the cut."""
    image = scene(50, season(500), site=ASPHALT)
    _, whole = look_at(meadow, 50, image)
    half = Grid(GRID.crs, GRID.transform, (SIDE, 10), 0)
    part = SeriesState(half, {n: v[:, :, :10] for n, v in meadow.layers.items()}, meadow.newest)
    _, cut = observe(
        part,
        image[:, :, :10],
        NAMES,
        np.ones((SIDE, 10), bool),
        START + timedelta(days=500),
        acquisition="S2-50",
        cover=MEADOWS[:, :10],
        farmed=FARMED[:, :10],
    )
    assert np.array_equal(cut.probability[:, :8], whole.probability[:, :8])


def test_bands_and_shape_are_checked(meadow):
    seen = np.ones((SIDE, SIDE), bool)
    with pytest.raises(BandlessImage, match="B11"):
        observe(
            meadow, np.ones((4, SIDE, SIDE), np.float32), NAMES[:4], seen, START, acquisition="a"
        )
    with pytest.raises(NoOverlap, match="grid"):
        observe(meadow, np.ones((6, 8, 8), np.float32), NAMES, seen, START, acquisition="a")


def test_a_block_is_judged_in_well_under_a_second():
    grid = Grid("EPSG:2154", from_origin(0, 5_120, 10, 10), (BLOCK, BLOCK), 0)
    state = SeriesState.empty(grid)
    assert sum(v.nbytes for v in state.layers.values()) == 145 * BLOCK**2
    image = np.tile(scene(0, MEADOW), (1, 26, 26))[:, :BLOCK, :BLOCK]
    seen, fastest = np.ones(grid.shape, bool), np.inf
    for number in range(3):
        started = perf_counter()
        state, _ = observe(state, image, NAMES, seen, START, acquisition=f"{number}")
        fastest = min(fastest, perf_counter() - started)
    assert fastest < 2.0  # 0.3 s alone on the machine
