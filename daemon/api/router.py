"""The HTTP API: everything with a token or a page, under one router."""

from __future__ import annotations

from fastapi import APIRouter

from daemon.api import alerts as api_alerts
from daemon.api import backup as api_backup
from daemon.api import chips as api_chips
from daemon.api import corrections as api_corrections
from daemon.api import exports as api_exports
from daemon.api import feeds as api_feeds
from daemon.api import subscriptions as api_subscriptions
from daemon.api import unsubscribe as api_unsubscribe
from daemon.ogc import addresses as ogc
from daemon.ogc import project as ogc_project
from daemon.stac import addresses as stac

router = APIRouter()
for part in (
    *(api_subscriptions, api_unsubscribe, api_alerts, api_chips, api_feeds, api_backup),
    api_exports,
    api_corrections,
    *(ogc, ogc_project, stac),
):
    router.include_router(part.router)
