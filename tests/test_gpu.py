"""The GPU's metrics: what is known, and nothing where none is in use."""

import pytest
import torch

from daemon.gpu import GpuCollector, Reading, families, readings
from daemon.metrics import Metrics


def samples(found):
    return {(s.name, s.labels["gpu"]): s.value for f in families(found) for s in f.samples}


def test_a_figure_nobody_knows_is_absent_not_zero():
    assert samples([]) == {}
    found = samples([Reading(0, 0.25, 10, 40), Reading(1, None, 20, 40)])
    assert found == {
        ("millesimed_gpu_utilization_ratio", "0"): 0.25,
        ("millesimed_gpu_memory_used_bytes", "0"): 10,
        ("millesimed_gpu_memory_used_bytes", "1"): 20,
        ("millesimed_gpu_memory_total_bytes", "0"): 40,
        ("millesimed_gpu_memory_total_bytes", "1"): 40,
    }


def test_looking_does_not_begin_to_use_a_gpu():
    before = torch.cuda.is_initialized()
    text = Metrics().text().decode()
    assert torch.cuda.is_initialized() == before
    assert before or "millesimed_gpu" not in text


def test_the_names_are_taken_even_where_nothing_is_exported():
    metrics = Metrics()
    with pytest.raises(ValueError, match="Duplicated"):
        GpuCollector(metrics.registry)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_in_use_says_its_memory():
    held = torch.zeros(1 << 28, dtype=torch.uint8, device="cuda")
    (reading, *_) = readings()
    assert held.numel() <= reading.used <= reading.total
    assert reading.utilization is None or 0 <= reading.utilization <= 1
