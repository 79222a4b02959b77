"""Publishing a map: stored data that holds it, then a service that shows it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from daemon.publish.http import Entity
from daemon.publish.plan import Plan, configuration_body
from daemon.publish.steps import CONTENT_TAG, SHOWN_TAG, Act, Next, of_service, on_endpoint
from daemon.publish.stored import Storing
from daemon.publish.token import PublishError
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
    return turns.done


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Nobody else on this machine publishes the same map meanwhile.

    Raises:
        PublishError: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PublishError(
            f"Another process is publishing {name}; wait for its end, then run this again."
        ) from None
    else:
        yield
    finally:
        os.close(handle)


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
            case Act.RECONFIGURE:
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
