"""Made-up pairs: the same for a seed, honest labels, change only where asked for."""

import numpy as np
import pytest

from detectors.synthetic import SyntheticSource, make_pair


def test_a_seed_is_a_pair():
    first, again, other = (make_pair(np.random.default_rng(s), size=96) for s in (3, 3, 4))
    assert np.array_equal(first.before, again.before) and np.array_equal(first.after, again.after)
    assert not np.array_equal(first.before, other.before)
    assert first.before.shape == (3, 96, 96) and first.before.dtype == np.uint8


def test_without_change_the_same_buildings_stand_and_everything_else_differs():
    for seed in range(6):
        pair = make_pair(np.random.default_rng(seed), size=96, change=False)
        assert not pair.changed.any()
        assert (pair.before != pair.after).mean() > 0.8


def test_buildings_appear_and_go_over_many_seeds():
    pairs = [make_pair(np.random.default_rng(s), size=128) for s in range(24)]
    came = sum(int((p.built_after & ~p.built_before).sum()) for p in pairs)
    went = sum(int((p.built_before & ~p.built_after).sum()) for p in pairs)
    pixels = 24 * 128 * 128
    assert 0.01 < came / pixels < 0.4 and 0.01 < went / pixels < 0.4


def test_a_new_building_changes_what_the_image_shows():
    inside, outside = [], []
    for seed in range(20):
        pair = make_pair(np.random.default_rng(seed), size=128)
        difference = np.abs(pair.after.astype(float) - pair.before).mean(axis=0)
        inside.append(difference[pair.changed])
        outside.append(difference[~pair.changed])
    assert np.concatenate(inside).mean() > 1.2 * np.concatenate(outside).mean()


@pytest.mark.parametrize("held_out", [True, False])
def test_the_source_draws_examples_of_the_size_asked_for(held_out):
    source = SyntheticSource()
    example = source.draw(np.random.default_rng(0), size=64, held_out=held_out)
    assert example.after.shape == (3, 64, 64) and example.built_after.shape == (64, 64)
    assert source.about["licence"] == "Apache-2.0" and "no real image" in source.about["data"]
