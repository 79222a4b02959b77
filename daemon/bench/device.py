"""``millesimed bench device``: what a detector's arithmetic reaches on a device, against its roof.

Tiles lie in the device's memory; neither files nor masks are timed. The roof is measured on the
same device in the same run: the bandwidth of a copy, and the arithmetic of a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from detectors.engine import choose_device
from detectors.irmad import MadTransform, fit_mad
from detectors.siamese import load
from detectors.synthetic import make_pair
from detectors.types import Progress

GSD_M = 0.2
COPY_BYTES = 1 << 28
PRODUCT_SIDE = {"cpu": 2_048, "cuda": 8_192}
SECONDS = 1.0
"""Each case is repeated for about this long; the fastest call counts."""


def bench_device(
    *, device: str, size: int, batch: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Throughput of ``irmad`` and ``siamese`` on resident tiles ``(batch, 3, size, size)``."""
    place = choose_device(device)
    rng = np.random.default_rng(0)
    pairs = [make_pair(rng, size=size) for _ in range(batch)]
    before, after = (
        torch.stack([torch.as_tensor(getattr(p, n)).float() for p in pairs]).to(place)
        for n in ("before", "after")
    )
    copy = _copy_bandwidth(place)
    peaks = {str(t): _product_flops(place, t) for t in (torch.float32, torch.bfloat16)}
    cases: dict[str, tuple[Callable[[], object], torch.dtype, float]] = {}
    transform = _transform(before, after)
    cases["irmad float32"] = (
        lambda: transform(before, after),
        torch.float32,
        before.nbytes + after.nbytes + 4 * before[:, 0].numel(),
    )
    network, _ = load(None, str(place))
    for name, dtype, compiled in _variants(place):
        model = torch.compile(network) if compiled else network
        cases[f"siamese {name}"] = (
            _judge(model, before, after, dtype),
            dtype,
            before.nbytes + after.nbytes + 4 * before[:, 0].numel(),
        )
    found = []
    reference: Tensor | None = None
    for number, (name, (call, dtype, least)) in enumerate(cases.items(), start=1):
        result, seconds, flops = _measured(call, place)
        megapixels = batch * size * size / 1e6
        row: dict[str, Any] = {
            "case": name,
            "km2_per_second": megapixels * GSD_M**2 / seconds,
            "megapixels_per_second": megapixels / seconds,
            "flops_per_pixel": flops / megapixels / 1e6,
            "least_bytes_per_pixel": least / megapixels / 1e6,
            "share_of_copy": least / seconds / copy,
            "share_of_product": flops / seconds / peaks[str(dtype)],
        }
        if name.startswith("siamese"):
            reference = result if reference is None else reference
            row["largest_difference"] = float((result - reference).abs().max())
        found.append(row)
        if progress is not None:
            progress("measure", number, len(cases))
    card = torch.cuda.get_device_name(place) if place.type == "cuda" else "cpu"
    return {
        "device": card,
        "tiles": [batch, 3, size, size],
        "copy_bytes_per_second": copy,
        "product_flops_per_second": peaks,
        "cases": found,
    }


def _variants(place: torch.device) -> list[tuple[str, torch.dtype, bool]]:
    plain = [("float32", torch.float32, False), ("bfloat16", torch.bfloat16, False)]
    if place.type != "cuda":  # compiling needs a C++ compiler, which a user may not have
        return plain
    return [
        *plain,
        ("float32 compiled", torch.float32, True),
        ("bfloat16 compiled", torch.bfloat16, True),
    ]


def _judge(
    model: Callable[..., Any], before: Tensor, after: Tensor, dtype: torch.dtype
) -> Callable[[], Tensor]:
    def call() -> Tensor:
        mixed = dtype != torch.float32
        with torch.no_grad(), torch.autocast(before.device.type, dtype=dtype, enabled=mixed):
            return torch.sigmoid(model(before, after).change.float())

    return call


def _transform(before: Tensor, after: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """IR-MAD's χ² of every pixel in float32, its transform fitted to a sample."""
    rows = torch.randperm(before[:, 0].numel(), generator=torch.Generator().manual_seed(0))[:50_000]
    flat = [
        i.permute(0, 2, 3, 1).reshape(-1, 3)[rows.to(i.device)].double().cpu().numpy()
        for i in (before, after)
    ]
    fitted: MadTransform = fit_mad(*flat)
    scale = 1 / np.sqrt(fitted.variance)
    offset = (fitted.mean_after @ fitted.to_after - fitted.mean_before @ fitted.to_before) * scale
    a, b, c = (
        torch.as_tensor(v, dtype=torch.float32, device=before.device)
        for v in ((fitted.to_before * scale).T, (fitted.to_after * scale).T, offset)
    )

    def chi2(x: Tensor, y: Tensor) -> Tensor:
        z = torch.einsum("ij,bjhw->bihw", a, x) - torch.einsum("ij,bjhw->bihw", b, y)
        return ((z + c[:, None, None]) ** 2).sum(dim=1)

    return torch.compile(chi2) if before.device.type == "cuda" else chi2


def _measured(call: Callable[[], Any], place: torch.device) -> tuple[Tensor, float, float]:
    """Result, seconds of the fastest call, floating-point operations of one call."""
    result: Tensor = call()
    with FlopCounterMode(display=False) as counter:
        call()
    return result, _fastest(call, place), float(counter.get_total_flops())


def _fastest(call: Callable[[], Any], place: torch.device) -> float:
    best, until = float("inf"), perf_counter() + SECONDS
    while perf_counter() < until:
        _wait(place)
        started = perf_counter()
        call()
        _wait(place)
        best = min(best, perf_counter() - started)
    return best


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


def _copy_bandwidth(place: torch.device) -> float:
    """Bytes read and written per second by a copy in the device's memory."""
    source = torch.zeros(COPY_BYTES, dtype=torch.uint8, device=place)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / _fastest(lambda: target.copy_(source), place)


def _product_flops(place: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a square matrix product."""
    side = PRODUCT_SIDE[place.type]
    a = torch.randn(side, side, device=place).to(dtype)
    return 2 * side**3 / _fastest(lambda: a @ a, place)
