"""HTTP: the map page and the figures page, with everything they load: no other host is asked.

Scripts, styles and words lie in ``daemon/web``; MapLibre GL JS comes from the ``maplibre`` wheel.
Addresses of files carry a hash of all of them, so a browser keeps them until they change.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, Response

from daemon import __version__
from daemon.api import figures as api_figures
from daemon.api import map as api_map
from daemon.api import tiles as api_tiles
from daemon.page.atlas import Atlas
from daemon.problems import problems
from daemon.tokens import Gate

LANGUAGES: Final = ("fr", "en")
WHEEL_FILES: Final = ("maplibre-gl.js", "maplibre-gl.css")
MEDIA: Final = {
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "json": "application/json",
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "worker-src blob:",  # MapLibre decodes tiles in a worker it makes of its own script
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
    "Vary": "Accept-Language",
}
KEPT: Final = "public, max-age=31536000, immutable"
EARLY: Final = '<link rel="preload" href="map/state" as="fetch" crossorigin="anonymous">'
"""Begins the page's first question before its scripts are there. Only where reading takes no token:
the browser would ask without one."""
_HOLE: Final = re.compile(r"\{\{([\w.-]+)\}\}")

router = APIRouter(tags=["page"], responses=problems(422))


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page, as it is and compressed."""

    content: bytes
    packed: bytes
    media: str


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """Every file by its name."""
    found = {
        file.name: file.read_bytes()
        for file in files("daemon").joinpath("web").iterdir()
        if file.name.rpartition(".")[2] in MEDIA
    }
    wheel = distribution("maplibre")  # located, not imported: its Python is not wanted
    for name in WHEEL_FILES:
        found[name] = Path(str(wheel.locate_file(f"maplibre/srcjs/{name}"))).read_bytes()
    return {
        name: Asset(body, gzip.compress(body, 9, mtime=0), MEDIA[name.rpartition(".")[2]])
        for name, body in sorted(found.items())
    }


@lru_cache(maxsize=1)
def build() -> str:
    """What changes when any file does."""
    together = hashlib.sha256()
    for name, asset in assets().items():
        together.update(name.encode() + asset.content)
    return together.hexdigest()[:12]


@lru_cache(maxsize=len(LANGUAGES))
def words(language: str) -> dict[str, str]:
    """What the page says in a language."""
    found: dict[str, str] = json.loads(assets()[f"{language}.json"].content)
    return found


@lru_cache(maxsize=8)
def document(name: str, language: str, *, public: bool) -> str:
    """A page with its words in it; scripts find them in a block of data. ``public``: whoever comes
    may read."""
    text = files("daemon").joinpath("web", name).read_text(encoding="utf-8")
    known = words(language)
    data = json.dumps(known, ensure_ascii=False).replace("<", "\\u003c")
    fixed = {"lang": language, "build": build(), "version": __version__, "words": data}
    other = "en" if language == "fr" else "fr"
    fixed |= {"other": other, "preload": EARLY if public else ""}

    def fill(hole: re.Match[str]) -> str:
        name = hole[1]
        return fixed[name] if name in fixed else html.escape(known[name])

    return _HOLE.sub(fill, text)


def language_of(accepted: str) -> str:
    """The first of our languages that a browser names (RFC 9110, 12.5.4), else French."""
    wishes = []
    for place, part in enumerate(accepted.split(",")):
        name, _, weight = part.strip().partition(";q=")
        try:
            wishes.append((-float(weight or 1), place, name.partition("-")[0].lower()))
        except ValueError:
            continue
    ranked = [name for weight, _, name in sorted(wishes) if weight < 0]
    return next((name for name in ranked if name in LANGUAGES), LANGUAGES[0])


Lang = Annotated[
    Literal["fr", "en"] | None, Query(description="Else what Accept-Language asks for, or French.")
]


def _page(name: str, request: Request, lang: str | None) -> HTMLResponse:
    language = lang or language_of(request.headers.get("accept-language", ""))
    gate: Gate = request.app.state.gate
    text = document(name, language, public=gate.public_read)
    return HTMLResponse(text, headers={**HEADERS, "Content-Language": language})


@router.get("/", response_class=HTMLResponse, responses=problems(422))
def map_page(request: Request, lang: Lang = None) -> HTMLResponse:
    """The map: millésimes, images before and after, changes, alerts."""
    return _page("map.html", request, lang)


@router.get("/figures", response_class=HTMLResponse, responses=problems(422))
def figures_page(request: Request, lang: Lang = None) -> HTMLResponse:
    """The figures: artificialisation, evolution matrix, latency."""
    return _page("figures.html", request, lang)


@router.get(
    "/assets/{made}/{name}",
    response_class=Response,
    responses={
        200: {"content": {media: {} for media in sorted(MEDIA.values())}},
        **problems(404, 422),
    },
)
def asset(
    request: Request,
    made: Annotated[str, InPath(max_length=12, description="Hash of all files.")],
    name: Annotated[str, InPath(max_length=60)],
) -> Response:
    """A script, a style, words or a symbol of the pages."""
    found = assets().get(name)
    if found is None:
        raise HTTPException(404, "The page has no such file.")
    headers = {
        "Cache-Control": KEPT if made == build() else "no-cache",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(found.packed, media_type=found.media, headers=headers)
    return Response(found.content, media_type=found.media, headers=headers)


def add_to(app: FastAPI) -> None:
    """Serve the pages, their tiles and what else they ask for."""
    app.state.atlas = Atlas()
    for part in (api_tiles, api_map, api_figures):
        app.include_router(part.router)
    app.include_router(router)
