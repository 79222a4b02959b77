"""Publishing a map: stored data that holds it, then a service that shows it, then an end of what it
showed before."""

from __future__ import annotations

from collections.abc import Sequence

from daemon.publish.http import Entity
from daemon.publish.plan import Plan, configuration_body
from daemon.publish.pruning import prune
from daemon.publish.steps import (
    CONTENT_TAG,
    NOTHING,
    SHOWN_TAG,
    Act,
    Next,
    of_service,
    on_endpoint,
    tags,
)
from daemon.publish.stored import Storing
from daemon.publish.turns import Published, Turns
from updater.deliveries import short


def publish(turns: Turns, plan: Plan) -> Published:
    """Publish, from wherever an earlier run was.

    Raises:
        PublishError: it failed, or takes longer than the settings grant.
    """
    storing = Storing(turns, plan)
    turns.done.stored = storing.run()
    serve(turns, plan, turns.done.stored)
    storing.tidy()
    prune(turns, plan)
    return turns.done


def serve(turns: Turns, plan: Plan, stored: str) -> None:
    """Have stored data shown: its configuration and its offering.

    Raises:
        PublishError: it failed, or takes longer than the settings grant.
    """
    api, settings, done = turns.api, turns.settings, turns.done
    body = configuration_body(settings, plan.texts, stored)
    service = settings.service
    content = short(repr((body, service.endpoint, service.open)).encode())
    synchronised = False

    def look() -> tuple[Next, Entity | None, Sequence[Entity]]:
        configuration = turns.named("configurations", body["name"])
        every = api.offerings(str(configuration["_id"])) if configuration else []
        offerings = on_endpoint(every, service.endpoint)
        step = of_service(
            configuration,
            offerings,
            content=content,
            endpoint=service.endpoint,
            synchronised=synchronised,
            retry=turns.may_retry("offering"),
        )
        done.configuration = str((configuration or {}).get("_id") or "")
        if offerings:
            done.offering = str(offerings[0]["_id"])
            done.urls = [_address(one) for one in offerings[0].get("urls") or []]
        return step, configuration, offerings

    def act(found: tuple[Next, Entity | None, Sequence[Entity]]) -> bool:
        nonlocal synchronised
        step, configuration, offerings = found
        id_ = str((configuration or {}).get("_id"))
        match step.act:
            case Act.CONFIGURE:
                made = api.create("configurations", body)
                api.tag("configurations", str(made["_id"]), {CONTENT_TAG: content})
            case Act.RECONFIGURE:  # its offering shows the body before until it follows
                if tags(configuration).get(SHOWN_TAG, NOTHING) != NOTHING:
                    api.tag("configurations", id_, {SHOWN_TAG: NOTHING})
                api.replace("configurations", id_, body)
                api.tag("configurations", id_, {CONTENT_TAG: content})
            case Act.OFFER:
                offered = {"endpoint": service.endpoint, "open": service.open}
                api.create(f"configurations/{id_}/offerings", offered)
                synchronised = True
            case Act.SYNCHRONISE:
                if step.why == "offering UNSTABLE":
                    turns.retried("offering")
                api.replace("offerings", str(offerings[0]["_id"]))
                synchronised = True
            case Act.NOTE:
                api.tag("configurations", id_, {SHOWN_TAG: content})
        return False

    turns.until_done(body["name"], "publication", look, act)


def _address(url: object) -> str:
    return str(url.get("url")) if isinstance(url, dict) else str(url)
