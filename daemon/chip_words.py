"""The words on the pictures of an alert, in French and English."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from schemas.policy import Sensor
from updater.reads import ImageRecord


class Language(StrEnum):
    """Languages pictures are written in."""

    FR = "fr"
    EN = "en"


class Problem(StrEnum):
    """Why a picture shows no ground."""

    UNKNOWN = "unknown"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    EMPTY = "empty"


WORDS: Final[dict[str, dict[str, str]]] = {
    "fr": {
        "before": "Avant",
        "after": "Après",
        "pixel": "pixel de {size} m",
        Problem.UNKNOWN: "Image inconnue de ce service.",
        Problem.MISSING: "Image absente du disque ; remettez le fichier en place.",
        Problem.UNREADABLE: "Image illisible ; livrez-la de nouveau.",
        Problem.EMPTY: "L'image n'a pas de données ici.",
        Sensor.PVA: "photo aérienne",
        Sensor.SPOT: "SPOT",
        Sensor.PLEIADES: "Pléiades",
        Sensor.SENTINEL_2: "Sentinel-2",
    },
    "en": {
        "before": "Before",
        "after": "After",
        "pixel": "{size} m pixels",
        Problem.UNKNOWN: "This service does not know the image.",
        Problem.MISSING: "The image is no longer on disk; put the file back.",
        Problem.UNREADABLE: "The image cannot be read; deliver it again.",
        Problem.EMPTY: "The image has no data here.",
        Sensor.PVA: "aerial photo",
        Sensor.SPOT: "SPOT",
        Sensor.PLEIADES: "Pléiades",
        Sensor.SENTINEL_2: "Sentinel-2",
    },
}
DAY: Final = {"fr": "%d/%m/%Y", "en": "%Y-%m-%d"}
ITEM_ENDS: Final = (12, 8)
"""Characters kept of a long item id: the sensor and day it begins with, the end that tells images
of one day apart."""


def caption(
    when: str, item: str | None, image: ImageRecord | None, language: Language
) -> tuple[str, str]:
    """Two lines under a picture: date and sensor, item and pixel; ``when``: before or after."""
    words = WORDS[language]
    if image is None:
        return f"{words[when]} – {words[Problem.UNKNOWN]}", shortened(item or "")
    day = image.acquired.strftime(DAY[language])
    pixel = words["pixel"].format(size=decimal(image.gsd, language))
    return (
        f"{words[when]} – {words[image.sensor]}, {day}",
        f"{shortened(image.item)}, {pixel}",
    )


def shortened(item: str) -> str:
    """An item id with its middle left out where it is long."""
    start, end = ITEM_ENDS
    return item if len(item) <= start + end + 1 else f"{item[:start]}…{item[-end:]}"


def decimal(value: float, language: Language) -> str:
    """A number of three digits with the language's decimal mark."""
    text = f"{value:.3g}"
    return text.replace(".", ",") if language is Language.FR else text


def length(metres: float) -> str:
    """A length as a scale bar says it."""
    return f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
