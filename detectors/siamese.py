"""The siamese detector: buildings that appeared or went, from two images alone.

A shared network (``detectors.network``) judges both dates at about ``REFERENCE_GSD_M``. It needs
no map and names one cover, the building. The weights that ship with the package were trained on
made-up pairs only (``detectors.synthetic``); ``millesimed train`` fine-tunes them on a millésime.
Sources: Daudt, Le Saux & Boulch 2018 (fully convolutional siamese networks for change detection);
Zheng et al. 2021 (ChangeStar: change learned from single-temporal buildings).
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import structlog
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from detectors.elevation import evidence
from detectors.encoder import band_range, to_rgb
from detectors.errors import DetectionError
from detectors.network import MULTIPLE, SiameseNetwork
from detectors.types import Progress, Scene, Tile, TileScores, valid_pixels
from schemas.nomenclature import CS_INDEX
from schemas.policy import BUILDING

log = structlog.get_logger()

REFERENCE_GSD_M = 0.2
"""Pixel the network was trained around: BD ORTHO's."""
GSD_AS_IS_M = (0.14, 0.55)
"""Pixels shown to the network without resampling: what its training drew from, and a little."""
COARSEST_GSD_M = 0.6
"""Beyond this a house is a dozen pixels, and magnifying them invents nothing."""
SAMPLE_TILES = 24


UNREADABLE: Final = (OSError, RuntimeError, SafetensorError)
"""What reading weights into a network raises: no file, no safetensors, another model's."""


class WeightsUnreadable(DetectionError):
    """The weight file or its card cannot be used."""

    reason = "weights"


class Siamese:
    """The trained network as a detector."""

    name = "siamese"
    version = "2"
    margin = 96
    """It sees 400 pixels far, but hardly: with this margin and tiles of 512, 99 % of a scene is
    within a byte step of the scene judged whole, and one decision in 50 000 differs."""
    needs_map = False
    abstains = False

    def __init__(self, weights: Path | None = None) -> None:
        self._weights = weights
        self._network: SiameseNetwork | None = None
        self._temperature = 1.0
        self._ranges: list[tuple[Tensor, Tensor]] = []
        self._zoom = 1.0

    def fit(self, scene: Scene, *, seed: int, progress: Progress | None = None) -> None:
        """Fetch the network and learn the range of each band on each date.

        Raises:
            WeightsUnreadable: the weight file is missing or another model's.
        """
        self._network, self._temperature = load(self._weights, str(scene.device))
        self._zoom = zoom_of(scene.grid.gsd_m)
        tiles = list(scene.sample(size=512, count=SAMPLE_TILES, seed=seed))
        self._ranges = [band_range(valid_pixels(tiles, date, each=8000)) for date in (0, 1)]

    def detect(self, tiles: list[Tile]) -> list[TileScores]:
        """Judge tiles: all of one shape at once where the device gains by it, else one by one."""
        alike = len({t.valid.shape for t in tiles}) == 1
        at_once = alike and bool(tiles) and tiles[0].before.is_cuda
        groups = [tiles] if at_once else [[tile] for tile in tiles]
        return [
            self._scores(tile, layers)
            for group in groups
            for tile, layers in zip(group, self._layers(group), strict=True)
        ]

    def _scores(self, tile: Tile, layers: Tensor) -> TileScores:
        change, before, after = layers
        probability = torch.sigmoid(change + evidence(tile.rise, after >= before))
        same = (tile.before == tile.after).all(dim=0)
        was, now = torch.sigmoid(before), torch.sigmoid(after)
        house = CS_INDEX[BUILDING]
        return TileScores(
            probability=probability.masked_fill(same, 0.0),
            magnitude=(now - was).abs(),
            from_class=((was >= 0.5).to(torch.uint8)) * house,
            to_class=((now >= 0.5).to(torch.uint8)) * house,
        )

    def logits(self, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """Log odds ``(row, col)`` of change, calibrated, and of a building before and after."""
        change, before, after = self._layers([tile])[0]
        return change, before, after

    def _layers(self, tiles: list[Tile]) -> Tensor:
        """``(tile, 3, row, col)``: those log odds of tiles of one shape."""
        if self._network is None:
            raise RuntimeError("fit the detector before it judges")
        shape, zoom = tuple(tiles[0].valid.shape), self._zoom
        size = (max(1, round(shape[0] * zoom)), max(1, round(shape[1] * zoom)))
        shown = []
        for date, (low, high) in enumerate(self._ranges):
            rgb = torch.stack([to_rgb((t.before, t.after)[date], low, high) for t in tiles])
            if zoom < 1:
                rgb = F.interpolate(rgb, size, mode="area")
            elif zoom > 1:
                rgb = F.interpolate(rgb, size, mode="bilinear", align_corners=False)
            shown.append(_padded(rgb))
        with torch.no_grad():
            found = self._network(*shown)
        layers = torch.stack(
            [found.change / self._temperature, found.built_before, found.built_after], dim=1
        )[..., : size[0], : size[1]]
        if size != shape:
            layers = F.interpolate(layers, shape, mode="bilinear", align_corners=False)
        return layers


def zoom_of(gsd: float | None) -> float:
    """How much an image is magnified before it is shown; 1 where no pixel size is known."""
    if gsd is None or GSD_AS_IS_M[0] <= gsd <= GSD_AS_IS_M[1]:
        return 1.0
    if gsd > COARSEST_GSD_M:
        log.warning("pixel_too_coarse", gsd=round(gsd, 2), advice="use irmad or cva instead")
        return 1.0
    return gsd / REFERENCE_GSD_M


def _padded(image: Tensor) -> Tensor:
    rows, cols = image.shape[-2:]
    below, right = -rows % MULTIPLE, -cols % MULTIPLE
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


@lru_cache(maxsize=4)
def load(weights: Path | None, device: str) -> tuple[SiameseNetwork, float]:
    """The network with a weight file (the package's own by default) and its temperature.

    Raises:
        WeightsUnreadable: the file is missing, damaged or another model's.
    """
    weights = weights or default_weights()
    network = SiameseNetwork()
    try:
        network.load_state_dict(load_file(weights))
        card = card_of(weights)
        temperature = float(card["calibration"]["temperature"])
    except (*UNREADABLE, KeyError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:120]
        raise WeightsUnreadable(
            f"{weights.name} is no siamese weight file with its card beside it ({detail}); train "
            "one with `millesimed train`."
        ) from None
    return network.eval().requires_grad_(False).to(device), temperature


def default_weights() -> Path:
    """The weight file that ships with the package."""
    return Path(str(files("detectors") / "weights" / "siamese.safetensors"))


def card_of(weights: Path) -> dict[str, Any]:
    """The model card beside a weight file."""
    found: dict[str, Any] = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    return found
