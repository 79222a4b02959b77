"""The Géoplateforme's download service: Atom feeds of resources, deliveries and files.

``/capabilities`` says which resources were updated since a day, ``/resource/NAME`` lists the
deliveries of one, ``/resource/NAME/DELIVERY`` its files with length and MD5. A delivery of BD ORTHO
is one archive, often in volumes; flight dates come in a delivery of their own, the mosaic graph.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote, urljoin, urlsplit
from xml.etree import ElementTree as Xml

import pystac
import structlog

from daemon.acquire.archives import VOLUME, delivered, unpack
from daemon.acquire.files import Checksum, Downloads, md5_list, safe_name
from daemon.acquire.http import Caller, xml_of
from daemon.acquire.ign import graph_in, images_in, missing, tile_item
from daemon.acquire.settings import GeoplateformeSource
from daemon.acquire.watcher import AcquireError, Cursor, Page, Ref
from daemon.files import settle
from schemas.policy import Sensor

log = structlog.get_logger()

ATOM: Final = "{http://www.w3.org/2005/Atom}"
GPF: Final = "{https://data.geopf.fr/annexes/ressources/xsd/gpf_dl.xsd}"
PAGE: Final = 50
"""Entries of a page, the most the service gives."""
MOST_PAGES: Final = 1_000
TRUST: Final = timedelta(days=7)
"""How long ``updatedFrom`` is believed when it says that nothing happened; then the deliveries are
listed all the same."""
MARGIN: Final = timedelta(days=1)
"""``updatedFrom`` is a day, and nobody says of which time zone."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a feed."""

    title: str
    href: str
    updated: str
    zone: str
    edition: str
    md5: str | None
    length: int | None

    @property
    def file(self) -> str:
        """Last part of its address."""
        return urlsplit(self.href).path.rsplit("/", 1)[-1]


class GeoplateformeWatcher:
    """One resource of the service."""

    def __init__(
        self,
        settings: GeoplateformeSource,
        folder: Path,
        caller: Caller,
        downloads: Downloads,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._settings, self._folder = settings, folder
        self._caller, self._downloads, self._now = caller, downloads, now

    def poll(self, cursor: Cursor) -> Iterator[Page]:
        """Deliveries of the zones that are new or were updated, each a page of its own."""
        now = self._now()
        since = cursor.get("since") or (self._settings.since or now.date()).isoformat()
        seen: dict[str, str] = dict(cursor.get("seen", {}))
        listed = cursor.get("listed")
        if listed is not None and now - datetime.fromisoformat(listed) < TRUST:
            asked = datetime.fromisoformat(cursor["asked"]) - MARGIN
            if not self._updated_since(asked.date()):
                yield Page([], {**cursor, "asked": now.isoformat()})
                return
        for zone in self._settings.zones:
            for entry in self._deliveries(zone):
                known = seen.get(entry.title)
                if known == entry.updated or (known is None and entry.updated[:10] < since):
                    continue
                seen[entry.title] = entry.updated
                data = {"href": entry.href, "zone": entry.zone or zone, "edition": entry.edition}
                ref = Ref(f"{entry.title}@{entry.updated}", entry.title, data)
                # not listed to the end yet: a crash here lists again
                yield Page([ref], {"since": since, "seen": dict(seen)})
        times = {"listed": now.isoformat(), "asked": now.isoformat()}
        yield Page([], {"since": since, "seen": seen, **times})

    def _updated_since(self, day: date) -> bool:
        """True where the resource is among those updated since a day."""
        found = self._feed(f"{self._settings.url}/capabilities", {"updatedFrom": day.isoformat()})
        return any(
            entry.href.rstrip("/").endswith(f"/{self._settings.resource}") for entry in found
        )

    def _deliveries(self, zone: str) -> Iterator[Entry]:
        """Deliveries of a zone that hold images."""
        for entry in self._listed(zone):
            if re.search(self._settings.match, entry.title) and entry.zone in {"", zone}:
                yield entry

    def _listed(self, zone: str) -> Iterator[Entry]:
        return self._feed(self._resource(), {"zone": zone})

    def _resource(self, *below: str) -> str:
        parts = (self._settings.url, "resource", self._settings.resource, *map(quote, below))
        return "/".join(parts)

    def _feed(self, url: str, asked: dict[str, str]) -> Iterator[Entry]:
        """Every entry of a feed, page by page."""
        for page in range(1, MOST_PAGES + 1):
            numbers = {"page": str(page), "limit": str(PAGE)}
            answer = self._caller.get(url, params={**asked, **numbers})
            root = xml_of(answer.content, url)
            if root.tag != f"{ATOM}feed":
                raise AcquireError(f"{url} is no Atom feed; check `url`.")
            yield from (entry for e in root.iter(f"{ATOM}entry") if (entry := _entry(e, url)))
            if page >= int(root.get(f"{GPF}pagecount") or 1):
                return
        raise AcquireError(f"{url} has pages without end; see its provider.")

    def fetch(self, ref: Ref) -> list[pystac.Item]:
        """Download a delivery and its mosaic graph, unpack both, describe the images."""
        folder = self._brought(ref.label, ref.key)
        folders = [folder]
        if graph_in(folders) is None:
            folders += self._graphs(ref)
        graph = graph_in(folders)
        images = images_in([folder], infrared=True)
        if not images:
            raise AcquireError(f"{ref.label} holds no image; correct `match` of the source.")
        if lacking := missing(images, [folder]):
            log.warning("delivery_incomplete", delivery=ref.label, missing=len(lacking))
        departement = self._settings.departement or ref.data["zone"]
        sensor = self._settings.sensor or Sensor.PVA
        return [tile_item(p, graph, sensor=sensor, departement=departement) for p in images]

    def _graphs(self, ref: Ref) -> list[Path]:
        """The mosaic graph of a delivery's zone and edition, unpacked."""
        zone, edition = ref.data["zone"], ref.data["edition"]
        return [
            self._brought(entry.title, f"{entry.title}@{entry.updated}")
            for entry in self._listed(zone)
            if self._settings.graph in entry.title
            and entry.zone in {"", zone}
            and edition in {entry.edition, ""}
        ]

    def _brought(self, delivery: str, key: str) -> Path:
        """A delivery's files, unpacked in a folder."""
        folder = self._folder / safe_name(key)
        if folder.is_dir():
            return folder
        entries = list(self._feed(self._resource(delivery), {}))
        sums = self._sums(entries)
        volumes: list[Path] = []
        staging = self._folder / f"{safe_name(key)}.download"
        for entry in sorted(entries, key=lambda entry: entry.file):
            if VOLUME.search(entry.file) is None:
                continue
            checksum = Checksum.md5(entry.md5 or sums.get(entry.file))
            target = staging / safe_name(entry.file)
            volumes.append(
                self._downloads.fetch(entry.href, target, checksum=checksum, size=entry.length)
            )
        if not volumes:
            raise AcquireError(f"{delivery} lists no archive; see the download service.")
        most = self._settings.max_bytes
        for number, first in enumerate(_firsts(volumes)):
            unpack(first, staging / f"unpacked-{number}", wanted=delivered, most=most)
        for path in volumes:
            path.unlink()
        settle(staging, folder)
        return folder

    def _sums(self, entries: list[Entry]) -> dict[str, str]:
        """MD5 of files whose entry has none, from the lists beside them."""
        found: dict[str, str] = {}
        bare = [e for e in entries if e.md5 is None and VOLUME.search(e.file)]
        for entry in entries if bare else []:
            if entry.file.lower().endswith(".md5"):
                listed = md5_list(self._caller.get(entry.href).text)
                found |= {name or entry.file[: -len(".md5")]: md5 for name, md5 in listed.items()}
        return found

    def close(self) -> None:
        """Let go of connections."""
        self._caller.close()


def _firsts(volumes: list[Path]) -> list[list[Path]]:
    """Archives, each with its volumes in order."""
    found: dict[str, list[Path]] = {}
    for path in volumes:
        found.setdefault(re.sub(r"\.\d{3}$", "", path.name), []).append(path)
    return list(found.values())


def _entry(node: Xml.Element, base: str) -> Entry | None:
    """An entry with an address; None without."""
    link = next((e for e in node.iter(f"{ATOM}link") if e.get("href")), None)
    if link is None:
        return None
    zone = node.find(f"{GPF}zone")
    length = link.get(f"{GPF}length") or link.get("length") or ""
    content = (node.findtext(f"{ATOM}content") or "").strip()
    href = urljoin(base, link.get("href", ""))
    edition = (node.findtext(f"{GPF}editionDate") or "").strip()
    return Entry(
        title=(node.findtext(f"{ATOM}title") or href.rsplit("/", 1)[-1]).strip(),
        href=href,
        updated=(node.findtext(f"{ATOM}updated") or edition).strip(),
        zone=(zone.get("term") or "") if zone is not None else "",
        edition=edition,
        md5=content if re.fullmatch(r"[0-9a-fA-F]{32}", content) else None,
        length=int(length) if length.isdigit() else None,
    )
