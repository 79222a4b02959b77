"""The siamese network: one frozen encoder, one shared decoder, a head that compares two dates.

Both dates go through the same weights (Chopra et al. 2005; for change detection Daudt et al.
2018). The decoder is a feature pyramid (Lin et al. 2017) over the ImageNet encoder; it also says
where buildings stand on each date, which is what the comparison learns from. Everything the
change head sees is symmetric in the two dates: swapping them cannot change the answer. The encoder
also looks at each image at half its size, so that a hall wider than its view is seen whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from detectors.encoder import CHANNELS, pretrained

WIDTH: Final = 48
FINE: Final = 32
STRIDE: Final = 2
"""Pixels of the input per pixel of the output."""
STYLE_GAIN: Final = 0.25
STYLE_SHIFT: Final = 0.25
HIDDEN_CHANNELS: Final = 0.15
"""How far features are restyled in training. Without it the network learns the painter's hand:
more training then makes made-up pairs better and real ones worse."""
MULTIPLE: Final = 32
"""Inputs are padded to a multiple of the coarsest stride."""


@dataclass(frozen=True, slots=True)
class Logits:
    """Log odds ``(tile, row, col)`` at the input's size: of change, and of a building before and
    after."""

    change: Tensor
    built_before: Tensor
    built_after: Tensor


def _conv(inputs: int, outputs: int, *, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class SiameseNetwork(nn.Module):
    """The trainable part; the frozen encoder is fetched from its wheel, never stored again."""

    def __init__(self) -> None:
        super().__init__()
        stride2, stride4, stride8, stride16 = CHANNELS
        self.lateral16 = _conv(stride16, WIDTH, kernel=1)
        self.lateral8 = _conv(stride8, WIDTH, kernel=1)
        self.lateral4 = _conv(stride4, WIDTH, kernel=1)
        self.lateral2 = _conv(stride2, FINE // 2, kernel=1)
        self.wide32 = _conv(stride16, WIDTH, kernel=1)
        self.wide16 = _conv(stride8, WIDTH, kernel=1)
        self.around = _conv(WIDTH, WIDTH)
        self.context = _conv(WIDTH, WIDTH)
        self.merge8 = _conv(WIDTH, WIDTH)
        self.merge4 = _conv(WIDTH, WIDTH)
        self.merge2 = _conv(WIDTH + FINE // 2, FINE)
        self.built = nn.Conv2d(FINE, 1, 1)
        self.compare = _conv(2 * FINE + 2, FINE)
        self.change = nn.Conv2d(FINE, 1, 1)

    def features(self, images: Tensor) -> Tensor:
        """Decoder features ``(tile, FINE, row / 2, col / 2)`` of images on 0 to 255."""
        small = F.avg_pool2d(images, 2)
        with torch.no_grad():
            encoder = pretrained(str(images.device))
            m2, m4, m8, m16 = (self._restyled(m) for m in encoder(images))
            _, _, wide8, wide16 = (self._restyled(m) for m in encoder(small))
        around = self.around(self.wide32(wide16))
        top = self.lateral16(m16) + self.wide16(wide8) + _up(around, m16)
        top = self.context(top)
        mid = self.merge8(self.lateral8(m8) + _up(top, m8))
        low = self.merge4(self.lateral4(m4) + _up(mid, m4))
        fine = self.merge2(torch.cat([self.lateral2(m2), _up(low, m2)], dim=1))
        return torch.as_tensor(fine)

    def _restyled(self, features: Tensor) -> Tensor:
        """In training, each channel of each image scaled and shifted at random, some hidden: what
        another camera, land or painter does to an encoder's features (as MixStyle, Zhou et al.
        2021, without a second style to mix)."""
        if not self.training:
            return features
        shape = (*features.shape[:2], 1, 1)
        spread = features.std(dim=(2, 3), keepdim=True)
        gain = 1 + STYLE_GAIN * torch.randn(shape, device=features.device)
        shift = STYLE_SHIFT * spread * torch.randn(shape, device=features.device)
        return F.dropout2d(features * gain + shift, HIDDEN_CHANNELS)

    def forward(self, before: Tensor, after: Tensor) -> Logits:
        """Judge pairs ``(tile, 3, row, col)`` on 0 to 255; sides must be multiples of 32."""
        tiles = len(before)
        both = self.features(torch.cat([before, after]))
        built = self.built(both)
        a, b = both[:tiles], both[tiles:]
        p, q = torch.sigmoid(built[:tiles]), torch.sigmoid(built[tiles:])
        evidence = torch.cat([(a - b).abs(), torch.maximum(a, b), (p - q).abs(), p * q], dim=1)
        change = self.change(self.compare(evidence))
        size = before.shape[-2:]
        full = F.interpolate(
            torch.cat([change, built[:tiles], built[tiles:]], dim=1),
            size,
            mode="bilinear",
            align_corners=False,
        )
        return Logits(full[:, 0], full[:, 1], full[:, 2])


def _up(coarse: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(coarse, like.shape[-2:], mode="bilinear", align_corners=False)


def loss(logits: Logits, built_before: Tensor, built_after: Tensor) -> Tensor:
    """Cross entropy and overlap (Dice) of change and of both dates' buildings."""
    change = (built_before != built_after).float()
    parts = [
        _one(logits.change, change),
        0.5 * _one(logits.built_before, built_before.float()),
        0.5 * _one(logits.built_after, built_after.float()),
    ]
    return torch.stack(parts).sum()


def _one(logit: Tensor, truth: Tensor) -> Tensor:
    p = torch.sigmoid(logit)
    dice = 1 - (2 * (p * truth).sum() + 1) / (p.sum() + truth.sum() + 1)
    return F.binary_cross_entropy_with_logits(logit, truth) + 0.5 * dice
