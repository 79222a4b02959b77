"""Where a Chromium is, how it draws maps without a graphics card, and how long the page takes in
it: for tests and the bench."""

from __future__ import annotations

import shutil
from time import perf_counter
from typing import Any, Final

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
PAINT: Final = "name => performance.getEntriesByName(name)[0]?.startTime"
"""When the page set one of its marks, or painted: milliseconds since it was asked for."""


def chromium() -> str | None:
    """The program, None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def first_paint(url: str) -> dict[str, Any]:
    """Seconds from the call of the page to three moments; null, with a sentence, where no browser
    can be had.

    - ``first_contentful_paint_s``: any content, as the browser tells it.
    - ``first_meaningful_paint_s``: the first frame in which every tile of the map, of its changes
      and alerts that the view needs is drawn (the page's mark ``map-meaningful``).
    - ``first_view_whole_s``: the images are there too, nothing is left to load or draw
      (``map-painted``).

    The browser keeps nothing yet. The service started ``service_up_s`` before the call; as any
    service it has been getting the map from afar ready since then.
    """
    started = perf_counter()
    names = {
        "first_contentful_paint_s": "first-contentful-paint",
        "first_meaningful_paint_s": "map-meaningful",
        "first_view_whole_s": "map-painted",
    }
    nothing = dict.fromkeys([*names, "service_up_s"])
    program = chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return nothing | {"why": "There is no playwright; pip install playwright."}
    if program is None:
        return nothing | {"why": "There is no Chromium; install the package chromium."}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=list(SOFTWARE_GL))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto("about:blank")
        up = perf_counter() - started
        page.goto(url)
        page.wait_for_function(PAINT, arg="map-painted", timeout=120_000)
        found = {key: page.evaluate(PAINT, name) for key, name in names.items()}
        browser.close()
    return {key: value / 1000 if value else None for key, value in found.items()} | {
        "service_up_s": up,
        "why": "Meaningful: all polygons of the view drawn; in software, without a GPU.",
    }
