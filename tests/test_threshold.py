"""Where change begins: the valley where there is one, the unchanged mode where there is none."""

import numpy as np
import pytest
import torch

from detectors.threshold import chi2_threshold, minimum_error, probability_of

RNG = np.random.default_rng(11)


@pytest.mark.parametrize("share", [0.03, 0.1, 0.3])
def test_two_modes_are_split_between_them(share):
    many = int(50_000 * (1 - share))
    still, changed = RNG.normal(0, 1, many), RNG.normal(6, 1, 50_000 - many)
    threshold = minimum_error(np.concatenate([still, changed]), floor=-9)
    assert ((still > threshold).sum() + (changed <= threshold).sum()) / 50_000 < 0.03


@pytest.mark.parametrize("draw", ["normal", "skewed", "heavy"])
def test_one_mode_flags_next_to_nothing(draw):
    scores = {
        "normal": RNG.normal(0, 1, 50_000),
        "skewed": np.cbrt(RNG.chisquare(3, 50_000)),
        "heavy": RNG.laplace(0, 1, 50_000),
    }[draw]
    assert (scores > minimum_error(scores, floor=-9)).mean() < 0.02


def test_the_floor_holds_and_constant_scores_have_nothing_else():
    assert minimum_error(RNG.normal(0, 1, 5_000), floor=8.0) == 8.0
    assert minimum_error(np.zeros(5_000), floor=1.5) == 1.5


def test_probability_is_a_half_at_the_threshold_and_grows():
    p = probability_of(torch.tensor([-5.0, 2.0, 9.0]), 2.0)
    assert p[1] == 0.5 and p[0] < 0.01 and p[2] > 0.99


@pytest.mark.parametrize("bands", [1, 3, 6])
def test_unchanged_chi2_is_left_alone_and_change_above_it_is_not(bands):
    still = RNG.chisquare(bands, 50_000)
    threshold = np.exp(chi2_threshold(still, floor=0.1))
    assert (still > threshold).mean() < 0.01
    assert threshold < 12 * bands + 20
