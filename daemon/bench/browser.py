"""Where a Chromium is, and how it draws maps without a graphics card: for tests and the bench."""

from __future__ import annotations

import shutil
from typing import Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
SOFTWARE_GL: Final = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--no-sandbox",  # it runs as root in containers, on pages of this service alone
    "--disable-dev-shm-usage",
)
"""WebGL in software: slower than any graphics card, the same pixels."""


def chromium() -> str | None:
    """The program, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)
