"""Feeds of alerts, Atom (RFC 4287) and GeoJSON: of a département, a territory, a subscription.

Most important first, in pages (RFC 5005: ``next`` and ``previous`` links), each with an ETag of its
content, so that a reader that asks again gets 304 and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import quote, urlencode
from xml.etree import ElementTree as ET

from schemas.alert import Alert, AlertKind, AlertState
from schemas.nomenclature import COUVERTURE
from schemas.subscription import ChannelKind, Subscription
from updater.alert_rows import message
from updater.alert_search import AT_ONCE, Asked, each
from updater.alert_search import page as search_page
from updater.store import Store
from updater.subscriptions import Matcher, matcher, subject
from updater.territories import territories_of

PAGE: Final = 100
ATOM: Final = "http://www.w3.org/2005/Atom"
GEORSS: Final = "http://www.georss.org/georss"
NOT_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not take, not even escaped."""
NOBODY: Final = "SU" + 20 * "0"
"""Who reads a territory's feed: no subscriber."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""When an empty feed was last updated."""
WORDS: Final[dict[str, dict[str, str]]] = {
    "fr": {
        AlertKind.ARTIFICIALISATION: "Artificialisation",
        AlertKind.DESARTIFICIALISATION: "Désartificialisation",
        AlertKind.CONSTRUCTION: "Construction",
        AlertKind.DEMOLITION: "Démolition",
        AlertKind.CLEARING: "Déboisement",
        AlertKind.OTHER: "Changement de couverture",
        AlertState.FIRST: "vue une fois",
        AlertState.PROVISIONAL: "provisoire",
        AlertState.CONFIRMED: "confirmée",
        AlertState.FINISHED: "terminée",
        AlertState.REJECTED: "rejetée",
        AlertState.SUPERSEDED: "remplacée",
        "feed": "Alertes d'artificialisation",
        "unknown": "inconnue",
        "seen": "vu du {first} au {last}, {looks} observation(s), probabilité {probability:.0%}",
    },
    "en": {
        AlertKind.ARTIFICIALISATION: "Artificialisation",
        AlertKind.DESARTIFICIALISATION: "De-artificialisation",
        AlertKind.CONSTRUCTION: "Construction",
        AlertKind.DEMOLITION: "Demolition",
        AlertKind.CLEARING: "Clearing of trees",
        AlertKind.OTHER: "Change of cover",
        AlertState.FIRST: "seen once",
        AlertState.PROVISIONAL: "provisional",
        AlertState.CONFIRMED: "confirmed",
        AlertState.FINISHED: "finished",
        AlertState.REJECTED: "rejected",
        AlertState.SUPERSEDED: "superseded",
        "feed": "Alerts of artificialisation",
        "unknown": "unknown",
        "seen": "seen from {first} to {last}, {looks} look(s), probability {probability:.0%}",
    },
}


@dataclass(frozen=True, slots=True)
class Feed:
    """A page of alerts: what it is of, where the service and the feed in it are (``base``, and a
    path without its suffix), what the reader asked for, its place among the pages."""

    name: str
    base: str
    path: str
    alerts: Sequence[Alert]
    page: int
    pages: int
    language: str = "fr"
    asked: Sequence[tuple[str, str]] = ()

    @property
    def id(self) -> str:
        """Never changes, and no other feed has it: the path, and what was asked for."""
        words = [quote(word, safe="") for word in self.path.strip("/").split("/")]
        words += [f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(self.asked)]
        return f"urn:millesimed:{':'.join(words)}"

    def link(self, page: int, suffix: str) -> str:
        """Address of another page."""
        query = urlencode([*self.asked, ("page", str(page))])
        return f"{self.base}{self.path}.{suffix}?{query}"


def every(store: Store) -> Iterator[Alert]:
    """Every alert in its latest state, most important first, a few read at a time."""
    for record in each(store, Asked()):
        yield message(record, departement=store.territory, crs=store.crs)


def alerts_of(store: Store) -> list[Alert]:
    """The same, all at once."""
    return list(every(store))


def page_of_all(store: Store, asked: Asked, page: int) -> tuple[list[Alert], int]:
    """One page of what is asked for, and how many there are."""
    count, rows = search_page([store], asked, page, PAGE)
    alerts = [message(r, departement=store.territory, crs=store.crs) for r, _ in rows]
    return alerts, _pages(count)


def of_territory(store: Store, code: str) -> list[Alert] | None:
    """Alerts that touch a territory; None where the store does not know it."""
    if code == store.territory:
        return alerts_of(store)
    grounds = {t.code: t.geometry for t in territories_of(store, [code])}
    if not grounds:
        return None
    place = Subscription(
        id=NOBODY,
        name=code,
        territories=[code],
        kinds=list(AlertKind),
        states=list(AlertState),
        min_area=0.0,
        min_probability=0.0,
        channel=ChannelKind.FEED,
    )
    return _matching(store, Matcher([place], grounds, store.crs))


def of_subscription(store: Store, wanted: Subscription) -> list[Alert]:
    """Alerts in their latest state that a subscription asks for."""
    return _matching(store, matcher(store, [wanted]))


def _matching(store: Store, matches: Matcher) -> list[Alert]:
    """Alerts that are taken, a few looked at a time: most are of no concern to one reader."""
    found: list[Alert] = []
    alerts = every(store)
    while part := list(islice(alerts, AT_ONCE)):
        subjects = [subject(alert, store.crs) for alert in part]
        found += [part[i] for i, _ in matches.matches(subjects)]
    return found


def page_of(alerts: Sequence[Alert], page: int) -> tuple[Sequence[Alert], int]:
    """One page of alerts, and how many there are; a page beyond the last is empty."""
    return alerts[(page - 1) * PAGE : page * PAGE], _pages(len(alerts))


def _pages(count: int) -> int:
    """Pages that so many alerts fill; at least one."""
    return max(1, -(-count // PAGE))


def etag(body: bytes) -> str:
    """What changes when the content does."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def geojson(feed: Feed) -> bytes:
    """The page as a GeoJSON FeatureCollection (RFC 7946) with links to its neighbours."""
    links = [{"rel": rel, "href": href} for rel, href in _links(feed, "geojson")]
    return json.dumps(collection(feed.alerts) | {"links": links}, ensure_ascii=False).encode()


def collection(alerts: Sequence[Alert]) -> dict[str, Any]:
    """Alerts as a GeoJSON FeatureCollection."""
    return {"type": "FeatureCollection", "features": [feature(alert) for alert in alerts]}


def feature(alert: Alert) -> dict[str, Any]:
    """An alert as a GeoJSON Feature."""
    return {
        "type": "Feature",
        "id": alert.id,
        "geometry": alert.geometry.model_dump(mode="json"),
        "properties": alert.model_dump(mode="json", exclude={"geometry"}),
    }


def written(alerts: Iterable[Alert]) -> Iterator[bytes]:
    """A GeoJSON FeatureCollection of any length, one feature after the other."""
    yield b'{"type": "FeatureCollection", "features": ['
    for place, alert in enumerate(alerts):
        yield (b",\n" if place else b"\n") + json.dumps(feature(alert), ensure_ascii=False).encode()
    yield b"\n]}\n"


def atom(feed: Feed) -> bytes:
    """The page as an Atom feed, one entry for each alert, with its outline in GeoRSS."""
    ET.register_namespace("", ATOM)
    ET.register_namespace("georss", GEORSS)
    words = WORDS[feed.language]
    root = ET.Element(
        f"{{{ATOM}}}feed", {"{http://www.w3.org/XML/1998/namespace}lang": feed.language}
    )
    _add(root, "id", feed.id)
    _add(root, "title", f"{words['feed']}, {feed.name}")
    updated = max((alert.known_at for alert in feed.alerts), default=EPOCH)
    _add(root, "updated", updated.isoformat())
    author = ET.SubElement(root, f"{{{ATOM}}}author")
    _add(author, "name", "millesimed")
    for rel, href in _links(feed, "atom"):
        ET.SubElement(root, f"{{{ATOM}}}link", rel=rel, href=href, type="application/atom+xml")
    for alert in feed.alerts:
        entry = ET.SubElement(root, f"{{{ATOM}}}entry")
        _add(entry, "id", f"urn:millesimed:alert:{alert.id}")
        _add(entry, "title", title(alert, feed.language))
        _add(entry, "updated", alert.known_at.isoformat())
        # an entry without content must have an alternate
        address = f"{feed.base}/alerts/{quote(alert.id, safe='')}"
        link = {"rel": "alternate", "href": address, "type": "application/json"}
        ET.SubElement(entry, f"{{{ATOM}}}link", link)
        _add(entry, "summary", explained(alert, feed.language))
        ET.SubElement(entry, f"{{{ATOM}}}category", term=alert.kind.value)
        ET.SubElement(entry, f"{{{ATOM}}}category", term=alert.state.value)
        for ring in _rings(alert):
            ET.SubElement(entry, f"{{{GEORSS}}}polygon").text = ring
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def title(alert: Alert, language: str) -> str:
    """Kind, state and size in one line."""
    return f"{standing(alert, language)}, {size(alert)}"


def standing(alert: Alert, language: str) -> str:
    """Kind and state."""
    words = WORDS[language]
    return f"{words[alert.kind]} {words[alert.state]}"


def size(alert: Alert) -> str:
    """The area with its unit."""
    area = f"{alert.area:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{area} m²"


def explained(alert: Alert, language: str) -> str:
    """What was there, what is, by which rule, and how sure that is."""
    words = WORDS[language]

    def cover(code: str | None) -> str:
        return COUVERTURE[code].label if code in COUVERTURE else words["unknown"]

    seen = words["seen"].format(
        first=alert.seen_first,
        last=alert.seen_last,
        looks=alert.looks,
        probability=alert.probability,
    )
    was, now = alert.before, alert.after
    return (
        f"{cover(was.code_cs)} ({was.code_cs}, {was.code_us}, {was.status.value}) → "
        f"{cover(now.code_cs)} ({now.code_cs}, {now.code_us}, {now.status.value}); {seen}"
    )


def _rings(alert: Alert) -> list[str]:
    """Outer rings as GeoRSS wants them: latitude and longitude by turns."""
    shape = alert.geometry.model_dump(mode="json")
    polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
    return [" ".join(f"{y} {x}" for x, y, *_ in polygon[0]) for polygon in polygons]


def _links(feed: Feed, suffix: str) -> list[tuple[str, str]]:
    links = [("self", feed.link(feed.page, suffix))]
    if feed.page < feed.pages:
        links.append(("next", feed.link(feed.page + 1, suffix)))
    if feed.page > 1:  # the one before the last, where a reader is beyond it
        links.append(("previous", feed.link(min(feed.page - 1, feed.pages), suffix)))
    return links


def _add(parent: ET.Element, name: str, text: str) -> None:
    ET.SubElement(parent, f"{{{ATOM}}}{name}").text = NOT_XML.sub(" ", text)
