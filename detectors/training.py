"""Training the siamese network: examples drawn from a seed, early stop, resumable at any epoch.

Every example is a function of (seed, epoch, number), so an interrupted run that resumes sees what
it would have seen. Weights and the optimiser's state are safetensors, figures are JSON: nothing
that is loaded can run code.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detectors.encoder import band_range, to_rgb
from detectors.errors import DetectionError
from detectors.network import Logits, SiameseNetwork, loss
from detectors.siamese import UNREADABLE, WeightsUnreadable
from detectors.types import BoolArray, Progress

LEARNING_RATE: Final = 2e-3
WEIGHT_DECAY: Final = 1e-2
PATIENCE: Final = 6
"""Epochs without a better validation F1 after which training stops."""
VALIDATION_EXAMPLES: Final = 64
_VALIDATION: Final = 1_000_003
"""Epoch number validation examples are drawn under: no training epoch ever has it."""
_EPOCH_STRIDE: Final = 7_919
TEMPERATURES: Final = tuple(np.geomspace(0.4, 4.0, 25))


class TrainingFailed(DetectionError):
    """Training cannot start or resume."""

    reason = "training"


@dataclass(frozen=True, slots=True)
class Example:
    """A pair with its buildings: uint8 ``(3, row, col)`` twice, bool ``(row, col)`` twice."""

    before: npt.NDArray[np.uint8]
    after: npt.NDArray[np.uint8]
    built_before: BoolArray
    built_after: BoolArray

    @property
    def changed(self) -> BoolArray:
        """Ground where a building appeared or went."""
        return np.asarray(self.built_before ^ self.built_after)


class Source(Protocol):
    """Where examples come from; must be picklable, for workers draw them."""

    @property
    def about(self) -> dict[str, Any]:
        """What goes on the model card: data, licence, bands, gsd."""
        ...

    def draw(self, rng: np.random.Generator, *, size: int, held_out: bool) -> Example:
        """One example of ``size`` pixels, from training or from held-out ground."""
        ...


@dataclass(slots=True)
class Plan:
    """How long and how finely to train."""

    epochs: int = 30
    steps: int = 100
    batch: int = 6
    size: int = 256
    seed: int = 0
    workers: int = 1
    patience: int = PATIENCE


@dataclass(slots=True)
class State:
    """Where a run stands: epochs done, best validation figures, and the loss of each epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=lambda: {"f1": -1.0, "iou": -1.0})
    temperature: float = 1.0
    history: list[dict[str, float]] = field(default_factory=list)


def ranges(image: Tensor) -> tuple[Tensor, Tensor]:
    """First and last percentile of each band of ``(band, …)``."""
    flat = image.flatten(1)
    flat = flat[:, :: max(1, flat.shape[1] // 20_000)].float()
    return band_range(flat, least=1.0)


def tensors(examples: list[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A batch: two images normalised each by itself, two masks."""
    images = []
    for name in ("before", "after"):
        stack = [torch.as_tensor(getattr(e, name)).float() for e in examples]
        images.append(torch.stack([to_rgb(i, *ranges(i)) for i in stack]))
    masks = [
        torch.stack([torch.as_tensor(getattr(e, name)) for e in examples])
        for name in ("built_before", "built_after")
    ]
    return images[0], images[1], masks[0], masks[1]


def train(
    source: Source,
    out: Path,
    *,
    plan: Plan,
    resume: bool = False,
    start_from: Path | None = None,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Train into ``out``: ``siamese.safetensors`` (the best epoch), its card, the run's state.

    ``start_from`` gives weights to fine-tune. Gives the command's figures.

    Raises:
        TrainingFailed: nothing to resume, or a run is there already.
    """
    place = device or torch.device("cpu")
    state_file = out / "state.json"
    if resume != state_file.is_file():
        raise TrainingFailed(
            f"{out} holds no run to resume; start one without --resume."
            if resume
            else f"{out} already holds a run; add --resume or choose another folder."
        )
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(plan.seed)
    network = SiameseNetwork().to(place)
    if start_from is not None:
        _take(network, start_from)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    state = State()
    if resume:
        state = State(**json.loads(state_file.read_text()))
        _take(network, out / "last.safetensors")
        _restore(optimiser, out / "optimiser.safetensors")
    with _drawer(source, plan) as drawer:
        held_out = list(drawer(_VALIDATION, VALIDATION_EXAMPLES // plan.batch, held_out=True))
        while state.epoch < plan.epochs and state.epoch - state.best_epoch < plan.patience:
            mean = _epoch(
                network, optimiser, drawer(state.epoch, plan.steps), plan, state, progress
            )
            figures, temperature = validate(network, held_out)
            state.epoch += 1
            state.history.append({"epoch": state.epoch, "loss": mean, **figures})
            if figures["f1"] > state.best["f1"]:
                state.best, state.best_epoch = figures, state.epoch
                state.temperature = temperature
                save_file(_plain(network), out / "siamese.safetensors")
                _write_card(out, source, plan, state)
            save_file(_plain(network), out / "last.safetensors")
            _keep(optimiser, out / "optimiser.safetensors")
            _write(state_file, asdict(state))
    return {
        "epochs": state.epoch,
        "validation": {k: state.best[k] for k in ("f1", "iou")},
        "weights": str(out / "siamese.safetensors"),
    }


def _epoch(
    network: SiameseNetwork,
    optimiser: torch.optim.Optimizer,
    batches: Iterator[list[Example]],
    plan: Plan,
    state: State,
    progress: Progress | None,
) -> float:
    network.train()
    torch.manual_seed(plan.seed + _EPOCH_STRIDE * (state.epoch + 1))  # a resumed epoch is the same
    total = 0.0
    for step, examples in enumerate(batches):
        share = (state.epoch + step / plan.steps) / plan.epochs
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * share)))
        before, after, first, second = _on(network, tensors(examples))
        value = loss(network(before, after), first, second)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(value.detach())
        if progress is not None:
            best = max(0.0, state.best["f1"])
            stage = f"train · loss {total / (step + 1):.3f} · F1 {best:.3f}"
            progress(stage, state.epoch * plan.steps + step + 1, plan.epochs * plan.steps)
    return total / plan.steps


def _on(network: SiameseNetwork, batch: tuple[Tensor, ...]) -> list[Tensor]:
    place = next(network.parameters()).device
    return [t.to(place, non_blocking=True) for t in batch]


def validate(
    network: SiameseNetwork, batches: list[list[Example]]
) -> tuple[dict[str, float], float]:
    """F1 and IoU of change on held-out examples, and the temperature that calibrates them."""
    network.eval()
    kept: list[tuple[Tensor, Tensor]] = []
    for examples in batches:
        before, after, first, second = _on(network, tensors(examples))
        with torch.no_grad():
            logits: Logits = network(before, after)
        kept.append((logits.change.flatten()[::7].cpu(), (first ^ second).flatten()[::7].cpu()))
    scores, truth = torch.cat([k[0] for k in kept]), torch.cat([k[1] for k in kept])
    found = scores > 0
    tp = float((found & truth).sum())
    fp, fn = float((found & ~truth).sum()), float((~found & truth).sum())
    costs = [
        float(torch.nn.functional.binary_cross_entropy_with_logits(scores / t, truth.float()))
        for t in TEMPERATURES
    ]
    figures = {"f1": 2 * tp / max(2 * tp + fp + fn, 1), "iou": tp / max(tp + fp + fn, 1)}
    return figures, float(TEMPERATURES[int(np.argmin(costs))])


@contextmanager
def _drawer(source: Source, plan: Plan) -> Iterator[Any]:
    """A function that gives the batches of an epoch, drawn ahead by worker processes."""
    method = get_context("spawn")
    with ProcessPoolExecutor(max_workers=plan.workers, mp_context=method) as pool:

        def batches(epoch: int, steps: int, *, held_out: bool = False) -> Iterator[list[Example]]:
            ahead: list[Any] = []
            for step in range(steps + plan.workers + 2):
                if step < steps:
                    job = (source, plan.seed, epoch, step, plan.batch, plan.size, held_out)
                    ahead.append(pool.submit(_draw, *job))
                if len(ahead) > plan.workers + 2 or (step >= steps and ahead):
                    yield ahead.pop(0).result()

        yield batches


def _draw(
    source: Source, seed: int, epoch: int, step: int, batch: int, size: int, held_out: bool
) -> list[Example]:
    torch.set_num_threads(1)
    return [
        source.draw(np.random.default_rng([seed, epoch, step, i]), size=size, held_out=held_out)
        for i in range(batch)
    ]


def _plain(network: SiameseNetwork) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}


def _keep(optimiser: torch.optim.Optimizer, path: Path) -> None:
    flat = {
        f"{index}.{name}": value.detach().cpu().contiguous().float()
        for index, slots in optimiser.state_dict()["state"].items()
        for name, value in slots.items()
    }
    save_file(flat, path)


def _take(network: SiameseNetwork, weights: Path) -> None:
    try:
        network.load_state_dict(load_file(weights))
    except UNREADABLE as error:
        detail = " ".join(str(error).split())[:120]
        raise WeightsUnreadable(
            f"{weights.name} holds no siamese weights ({detail}); give a safetensors file that "
            "`millesimed train` made."
        ) from None


def _restore(optimiser: torch.optim.Optimizer, path: Path) -> None:
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(path).items():
        index, name = key.split(".")
        slots.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": slots})


def _write(path: Path, value: dict[str, Any]) -> None:
    staged = path.with_name(path.name + ".part")
    staged.write_text(json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    staged.replace(path)


def _write_card(out: Path, source: Source, plan: Plan, state: State) -> None:
    card = {
        "model": "siamese",
        **source.about,
        "examples": state.epoch * plan.steps * plan.batch,
        "seed": plan.seed,
        "epoch": state.epoch,
        "validation": state.best,
        "calibration": {"temperature": state.temperature},
    }
    _write(out / "siamese.json", card)
