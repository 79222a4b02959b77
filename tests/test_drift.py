"""The control chart: quiet on what is usual, loud on a shift, not on one odd scene."""

import numpy as np
import pytest

from daemon.drift import Chart


def shares(rng, count, middle=0.01, spread=0.5):
    odds = np.log(middle / (1 - middle)) + rng.normal(0, spread, count)
    return 1 / (1 + np.exp(-odds))


def drifts(chart, values):
    return [chart.add(float(v)) for v in values]


def test_usual_scenes_stay_within_the_limit():
    found = [drifts(Chart(), shares(np.random.default_rng(seed), 400))[20:] for seed in range(20)]
    beyond = np.mean(np.abs(found) > 4)
    assert beyond < 0.005
    assert 0.7 < np.std(found) < 1.6  # it is in standard deviations


@pytest.mark.parametrize(("factor", "sign"), [(4, 1), (0.25, -1)])
def test_a_detector_that_flags_four_times_as_much_or_as_little_is_seen_within_twenty_scenes(
    factor, sign
):
    for seed in range(10):
        rng, chart = np.random.default_rng(seed), Chart()
        drifts(chart, shares(rng, 100))
        after = drifts(chart, shares(rng, 20, middle=0.01 * factor))
        assert max(sign * d for d in after) > 4


def test_one_odd_scene_is_no_drift():
    rng, chart = np.random.default_rng(3), Chart()
    drifts(chart, shares(rng, 100))
    assert abs(chart.add(0.06)) < 4 and abs(chart.add(0.01)) < 4


def test_a_new_normal_is_learned():
    rng, chart = np.random.default_rng(4), Chart()
    drifts(chart, shares(rng, 200))
    after = drifts(chart, shares(rng, 600, middle=0.05))
    assert max(after[:30]) > 4 and np.abs(after[-100:]).max() < 4


def test_nothing_flagged_at_all_and_everything_flagged_are_figures_too():
    chart = Chart()
    assert chart.add(0.0) == 0.0
    assert np.isfinite(chart.add(0.0)) and np.isfinite(chart.add(1.0))
