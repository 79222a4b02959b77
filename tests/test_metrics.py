"""The catalogue: names that keep the conventions, stages that count failures too."""

import pytest

from daemon.metrics import STAGES, Metrics


def test_every_metric_has_the_prefix_and_a_sentence():
    for family in Metrics().registry.collect():
        assert family.name.startswith("millesimed_"), family.name
        assert family.documentation.endswith("."), family.name


def test_a_failing_stage_is_counted_and_left():
    metrics = Metrics()
    with pytest.raises(ValueError), metrics.stage("plan"):
        raise ValueError
    text = metrics.text().decode()
    assert 'millesimed_stage_failures_total{stage="plan"} 1.0' in text
    assert 'millesimed_stage_in_progress{stage="plan"} 0.0' in text
    assert 'millesimed_stage_seconds_count{stage="plan"} 1.0' in text


def test_every_stage_is_there_from_the_start():
    text = Metrics().text().decode()
    for stage in STAGES:
        assert f'millesimed_stage_in_progress{{stage="{stage}"}} 0.0' in text
