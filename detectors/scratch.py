"""Pixels put aside between two passes: in memory while small, in a temporary file when not.

The file is read and written in place (``pread`` / ``pwrite``), never mapped, so that a scene of any
size costs the process no more memory than the windows it holds.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from detectors.types import FloatArray, Window

IN_MEMORY_BYTES = 128 * 2**20
"""Scratch up to this size stays in memory; a larger one goes to a temporary file."""


class Scratch:
    """A raster ``(band, row, col)`` of one dtype, zero until written. Threads may share it."""

    def __init__(
        self, bands: int, shape: tuple[int, int], dtype: npt.DTypeLike, folder: Path
    ) -> None:
        self.bands, self.shape, self.dtype = bands, shape, np.dtype(dtype)
        size = bands * shape[0] * shape[1] * self.dtype.itemsize
        self._pixels: npt.NDArray[np.generic] | None = None
        self._file = -1
        if size <= IN_MEMORY_BYTES:
            self._pixels = np.zeros((*shape, bands), self.dtype)
            return
        path = folder / f"scratch-{id(self)}.raw"
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()  # the space is given back whenever the process ends, however it ends
        os.ftruncate(self._file, size)

    def write(self, window: Window, pixels: npt.NDArray[np.generic]) -> None:
        """Keep ``(band, row, col)`` of one window."""
        rows = np.ascontiguousarray(np.moveaxis(pixels, 0, -1), self.dtype)
        if self._pixels is not None:
            self._pixels[window.slices] = rows
            return
        if window.width == self.shape[1]:
            _write_all(self._file, rows, self._place(window.row, window.col))
            return
        for number in range(window.height):
            _write_all(self._file, rows[number], self._place(window.row + number, window.col))

    def read(self, window: Window) -> npt.NDArray[np.generic]:
        """One window ``(band, row, col)`` in the scratch's own dtype; the caller's to keep."""
        if self._pixels is not None:
            return np.ascontiguousarray(np.moveaxis(self._pixels[window.slices], -1, 0))
        rows = np.empty((window.height, window.width, self.bands), self.dtype)
        if window.width == self.shape[1]:
            _read_all(self._file, rows, self._place(window.row, window.col))
        else:
            for number in range(window.height):
                _read_all(self._file, rows[number], self._place(window.row + number, window.col))
        return np.ascontiguousarray(np.moveaxis(rows, -1, 0))

    def read_float(self, window: Window) -> FloatArray:
        """One window as float32."""
        return np.asarray(self.read(window), np.float32)

    def _place(self, row: int, col: int) -> int:
        return (row * self.shape[1] + col) * self.bands * self.dtype.itemsize

    def close(self) -> None:
        """Give memory or disk back."""
        self._pixels = None
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, pixels: npt.NDArray[np.generic], place: int) -> None:
    rest = memoryview(pixels.data).cast("B")
    while len(rest):
        done = os.pwrite(file, rest, place)
        rest, place = rest[done:], place + done


def _read_all(file: int, pixels: npt.NDArray[np.generic], place: int) -> None:
    rest = memoryview(pixels.data).cast("B")
    while len(rest):
        done = os.preadv(file, [rest], place)
        if done == 0:
            raise OSError("The scratch file ended early; is the temporary folder full?")
        rest, place = rest[done:], place + done
