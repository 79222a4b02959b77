"""Wishes that come from outside: given in part, and judged before they are kept."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import shapely
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from shapely.geometry import shape

from daemon.addresses import AddressRefused, checked
from daemon.problems import sentence
from daemon.served import Served
from schemas.geojson import vertices
from schemas.subscription import Subscription, Wish

MOST_VERTICES: Final = 10_000
"""Of a polygon: a département's outline at the scale of a commune has fewer."""
WishPart: type[BaseModel] = create_model(  # type: ignore[call-overload]
    "WishPart",
    __config__=ConfigDict(extra="forbid", allow_inf_nan=False),
    __doc__="Any field of a wish; null takes its default again (RFC 7396).",
    **{
        name: (field.rebuild_annotation() | None, None) for name, field in Wish.model_fields.items()
    },
)


def merged(known: Subscription, given: dict[str, Any]) -> Wish:
    """A wish with some fields given anew; a null is not asked for.

    Raises:
        HTTPException: 422, the whole makes no sense.
    """
    fields = known.model_dump(mode="json", include=set(Wish.model_fields)) | given
    try:
        return Wish.model_validate({k: v for k, v in fields.items() if v is not None})
    except ValidationError as error:
        raise HTTPException(422, sentence(error)) from None


def check(behind: Served, wish: Wish, known: Wish | None = None) -> None:
    """What a wish must be that comes from outside; what was ``known`` is not judged again.

    Raises:
        HTTPException: 422, a polygon too fine or broken, a webhook that may not be called.
    """
    if wish.polygon is not None and (known is None or known.polygon != wish.polygon):
        if vertices(wish.polygon) > MOST_VERTICES:
            raise HTTPException(
                422, f"polygon: at most {MOST_VERTICES:,} vertices; simplify the outline."
            )
        outline = shape(wish.polygon.model_dump())
        if not outline.is_valid:
            reason = shapely.is_valid_reason(outline)
            raise HTTPException(422, f"polygon: no valid outline ({reason}); mend it.")
    if wish.url is not None and (known is None or known.url != wish.url):
        _address(behind, wish.url)


def _address(behind: Served, url: str) -> None:
    """A name that is not known yet passes: it is judged again with each call."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80}.get(parts.scheme, 443)
        checked(parts.hostname or "", port, behind.allowed)
    except AddressRefused as error:
        raise HTTPException(422, f"url: {error}") from None
    except UnicodeError:
        raise HTTPException(422, "url: no host name; correct it.") from None
    except ValueError:
        raise HTTPException(422, "url: no port; correct it.") from None
    except OSError:
        return
