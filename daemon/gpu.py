"""What the GPU is doing, read when Prometheus asks; nothing at all where none is in use."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from daemon.catalogue import CATALOGUE

ATTRIBUTES: Final = ("gpu_utilization", "gpu_memory_used", "gpu_memory_total")


@dataclass(frozen=True, slots=True)
class Reading:
    """One device now. ``utilization``: share of time busy, None where NVML is not there to say;
    memory in bytes."""

    gpu: int
    utilization: float | None
    used: int
    total: int


class GpuCollector(Collector):
    """Exports the devices this process uses."""

    def __init__(self, registry: CollectorRegistry) -> None:
        registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Families of what is known of each device; none without CUDA in use."""
        return families(readings())

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The names, so that nobody else takes them."""
        return iter([_family(attribute) for attribute in ATTRIBUTES])


def readings() -> list[Reading]:
    """Every device, once this process has begun to use one: asking earlier would cost a CUDA
    context, some hundred megabytes of the GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return []
    found = []
    for gpu in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(gpu)
        try:
            busy: float | None = torch.cuda.utilization(gpu) / 100
        except (ImportError, RuntimeError):  # no nvidia-ml-py, or a driver that does not tell
            busy = None
        found.append(Reading(gpu, busy, total - free, total))
    return found


def families(found: Sequence[Reading]) -> Iterator[GaugeMetricFamily]:
    """The exported form of some readings: a figure nobody knows is left out."""
    figures: list[list[float | None]] = [[r.utilization, r.used, r.total] for r in found]
    for column, attribute in enumerate(ATTRIBUTES):
        family = _family(attribute)
        for reading, values in zip(found, figures, strict=True):
            value = values[column]
            if value is not None:
                family.add_metric([str(reading.gpu)], value)
        if family.samples:
            yield family


def _family(attribute: str) -> GaugeMetricFamily:
    entry = CATALOGUE[attribute]
    return GaugeMetricFamily(entry.name, entry.help, labels=list(entry.labels))
