"""IR-MAD and CVA against an independent implementation in SciPy, and their plain promises."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats

from daemon.demo.render import write_geotiff
from detectors.engine import detect_scene
from detectors.irmad import fit_mad, no_change
from detectors.registry import make_detector
from detectors.scene import open_scene
from detectors.types import CHANGED


def pixels(seed=0, count=6000, changed=0.08):
    rng = np.random.default_rng(seed)
    base = rng.normal(0, 1, (count, 3)) @ rng.normal(0, 1, (3, 3)) * 20 + 100
    after = base @ np.diag([0.9, 1.1, 1.0]) + 7 + rng.normal(0, 2, base.shape)
    where = rng.random(count) < changed
    after[where] += rng.normal(60, 20, (where.sum(), 3))
    return base, after, where


def reference_irmad(x, y, rounds=6):
    """IR-MAD by the generalised eigenproblem, as Nielsen 2007 writes it."""
    w = np.ones(len(x))
    p = x.shape[1]
    chi2 = np.zeros(len(x))
    for _ in range(rounds):
        s = np.cov(np.hstack([x, y]).T, aweights=w, bias=True)
        sxx, sxy, syy = s[:p, :p], s[:p, p:], s[p:, p:]
        values, a = scipy.linalg.eigh(sxy @ np.linalg.solve(syy, sxy.T), sxx)
        rho = np.sqrt(np.clip(values, 0, 1))
        b = np.linalg.solve(syy, sxy.T @ a)
        b /= np.sqrt(np.einsum("ij,ik,kj->j", b, syy, b))
        mx, my = np.average(x, axis=0, weights=w), np.average(y, axis=0, weights=w)
        mad = (x - mx) @ a - (y - my) @ b
        chi2 = (mad**2 / (2 * (1 - rho))).sum(axis=1)
        w = scipy.stats.chi2.sf(chi2, p)
    return chi2


def test_irmad_agrees_with_an_independent_implementation():
    x, y, _ = pixels()
    ours = fit_mad(x, y, rounds=5).chi2(x, y)
    theirs = reference_irmad(x, y)
    assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_no_change_probability_is_the_tail_of_chi_square():
    values = np.linspace(0, 40, 50)
    for bands in (1, 3, 7):
        assert np.allclose(no_change(values, bands), scipy.stats.chi2.sf(values, bands), atol=1e-9)


def test_changed_pixels_stand_out_whatever_the_linear_radiometry():
    x, y, where = pixels()
    one = fit_mad(x, y).chi2(x, y)
    other = fit_mad(x, y * 3 - 40).chi2(x, y * 3 - 40)
    assert np.allclose(one, other, rtol=1e-3, atol=1e-6)
    assert np.median(one[where]) > 20 * np.median(one[~where])


def test_constant_and_collinear_bands_do_not_break_it():
    x, y, _ = pixels()
    x[:, 2], y[:, 2] = 5.0, x[:, 0]
    assert np.isfinite(fit_mad(x, y).chi2(x, y)).all()


@pytest.fixture
def pair(tmp_path):
    rng = np.random.default_rng(5)
    before = np.clip(rng.normal(110, 25, (3, 320, 320)), 0, 255)
    after = before * 0.92 + 9 + rng.normal(0, 3, before.shape)
    after[:, 100:160, 120:200] = rng.normal(200, 6, (3, 60, 80))
    bounds = (500_000.0, 6_280_000.0, 500_160.0, 6_280_160.0)
    for name, image in (("before", before), ("after", after)):
        write_geotiff(tmp_path / f"{name}.tif", np.clip(image, 0, 255).astype(np.uint8), bounds)
    return tmp_path / "before.tif", tmp_path / "after.tif"


def judged(name, before, after):
    with open_scene([before], after) as scene, detect_scene(scene, make_detector(name)) as found:
        return found.read(scene.grid.window)[0]


@pytest.mark.parametrize("name", ["cva", "irmad"])
def test_a_planted_change_is_found_and_little_else(pair, name):
    flagged = judged(name, *pair) >= CHANGED
    assert flagged[105:155, 125:195].mean() > 0.95
    flagged[95:165, 115:205] = False
    assert flagged.mean() < 0.02


@pytest.mark.parametrize("name", ["cva", "irmad", "deep-cva"])
def test_a_pair_with_itself_flags_nothing(pair, name):
    assert not (judged(name, pair[0], pair[0]) >= CHANGED).any()


@pytest.mark.parametrize("name", ["cva", "irmad"])
def test_the_same_seed_gives_the_same_bytes(pair, name):
    assert np.array_equal(judged(name, *pair), judged(name, *pair))
