"""The HTTP API: everything with a token or a page, under one router."""

from __future__ import annotations

from fastapi import APIRouter

from daemon import (
    api_alerts,
    api_backup,
    api_chips,
    api_corrections,
    api_exports,
    api_feeds,
    api_subscriptions,
    api_unsubscribe,
    ogc,
    ogc_project,
    stac,
)

router = APIRouter()
for part in (
    *(api_subscriptions, api_unsubscribe, api_alerts, api_chips, api_feeds, api_backup),
    api_exports,
    api_corrections,
    *(ogc, ogc_project, stac),
):
    router.include_router(part.router)
