"""Image files gone wrong: truncated, bits flipped, bytes cut out, in every format that is opened.

``python -m tests.faults.fuzz_images FOLDER COUNT SEED`` prints how many were tried and read; what
is neither pixels nor a sentence ends it with a traceback.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np

from detectors.errors import DetectionError
from detectors.raster import Raster, common_grid
from tests.faults.inputs import is_sentence, scrambled
from tests.test_raster import ramp, written

KINDS = {
    "cog": {"driver": "COG", "blocksize": 128, "compress": "deflate"},
    "strips": {"driver": "GTiff", "compress": "lzw"},
    "big": {"driver": "GTiff", "bigtiff": "yes", "tiled": True, "blockxsize": 64, "blockysize": 64},
    "jpeg": {"driver": "GTiff", "compress": "jpeg", "tiled": True, "photometric": "ycbcr"},
    "jp2": {"driver": "JP2OpenJPEG", "quality": 50},
}
DEADLINE_SECONDS = 20.0
HEADER_BYTES = 600


def originals(folder: Path) -> dict[str, bytes]:
    """A good image of every kind."""
    return {
        kind: written(folder / f"good-{kind}", ramp(300, 260), **profile).read_bytes()
        for kind, profile in KINDS.items()
    }


def wrong(body: bytes, chance: random.Random) -> bytes:
    """An image cut off, or damaged in its header, in its pixels or anywhere."""
    match chance.randrange(4):
        case 0:
            return body[: chance.randrange(len(body))]
        case 1:
            head = scrambled(body[:HEADER_BYTES], chance)
            return head + body[HEADER_BYTES:]
        case 2:
            flipped = bytearray(body)
            for _ in range(chance.choice((1, 4, 40))):
                flipped[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
            return bytes(flipped)
        case _:
            return scrambled(body, chance)


def judged(path: Path, reference: Path) -> bool:
    """True where pixels came out of it on the reference's grid."""
    try:
        grid = common_grid([reference], path, whole_before=False)
        with Raster([path], grid) as raster:
            pixels, valid = raster.read(grid.window)
    except DetectionError as error:
        assert error.reason != "internal"
        assert is_sentence(str(error)), str(error)
        return False
    assert pixels.shape[1:] == valid.shape == grid.shape and np.isfinite(pixels[:, valid]).all()
    return True


def main() -> None:
    """Try so many."""
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    good, chance, accepted = originals(folder), random.Random(seed), 0
    reference, path = folder / "good-cog", folder / "wrong.tif"
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        path.write_bytes(wrong(good[kind], chance))
        began = time.perf_counter()
        try:
            accepted += judged(path, reference)
        except BaseException:
            sys.stderr.write(f"input {number} of seed {seed} ({kind}), kept as {path}\n")
            raise
        assert time.perf_counter() - began < DEADLINE_SECONDS, f"input {number} of seed {seed}"
    sys.stdout.write(f"{count} tried, {accepted} read\n")


if __name__ == "__main__":
    main()
