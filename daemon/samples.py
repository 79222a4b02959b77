"""A Prometheus exposition, to be asked by name and labels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample


class Samples:
    """The samples of one moment."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The samples of a text; None where it is no exposition."""
        try:
            families = list(text_string_to_metric_families(text))
        except ValueError:
            return None
        return cls(sample for family in families for sample in family.samples)

    def one(self, name: str, **labels: str) -> float | None:
        """The value of the first series with these labels; None where there is none."""
        found = (s for s in self._by_name.get(name, []) if labels.items() <= s.labels.items())
        return next((sample.value for sample in found), None)

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values of a metric by one of its labels, summed over the others."""
        values: dict[str, float] = {}
        for sample in self._by_name.get(name, []):
            key = sample.labels.get(label, "")
            values[key] = values.get(key, 0.0) + sample.value
        return values

    def labels(self, name: str, label: str) -> list[str]:
        """The values a label of a metric has."""
        return list(self.by(name, label))
