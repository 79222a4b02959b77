"""A folder that deliveries of IGN are put into: each folder or archive in it is one delivery.

A delivery is complete when it has stopped changing (two looks apart see the same sizes and times,
and the newest file is old enough: copying may keep the time of the original), or at once where
every image in it matches an MD5 that came along.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pystac
import structlog

from daemon.acquire.archives import IMAGES, VOLUME, delivered, unpack
from daemon.acquire.files import Checksum, WrongChecksum, md5_list, safe_name
from daemon.acquire.ign import graph_in, images_in, missing, tile_item
from daemon.acquire.settings import FolderSource
from daemon.acquire.watcher import AcquireError, Cursor, Page, Ref
from schemas.policy import Sensor

log = structlog.get_logger()

MOST_LIST: Final = 4 << 20
"""Bytes of a list of MD5 that is read."""
EDITION: Final = re.compile(r"_D(?:\d{3}|02[AB])_\d{4}(?=-|_|\.|$)")
"""Département and millésime in the name of a delivery."""
Print = dict[str, list[int]]
"""Files of a delivery by their path in it: size, and time of change in nanoseconds."""


class FolderWatcher:
    """One folder."""

    def __init__(
        self, settings: FolderSource, folder: Path, *, clock: Callable[[], float] = time.time
    ) -> None:
        """``folder``: where archives are unpacked."""
        self._settings, self._unpacked, self._clock = settings, folder, clock

    def poll(self, cursor: Cursor) -> Iterator[Page]:
        """Deliveries that are complete and were not announced in this form."""
        if not self._settings.folder.is_dir():
            raise AcquireError(f"There is no folder {self._settings.folder}; make it or mount it.")
        seen: dict[str, Print] = dict(cursor.get("seen", {}))
        waiting: dict[str, Any] = {}
        for name, print_ in self._deliveries().items():
            if seen.get(name) == print_ or _is_graph(name, print_):
                continue
            if not self._complete(name, print_, cursor.get("waiting", {}).get(name)):
                waiting[name] = print_
                continue
            seen[name] = print_
            times = max(changed for _, changed in print_.values())
            ref = Ref(f"{name}@{len(print_)}-{times}", name, {"name": name})
            yield Page([ref], {"seen": dict(seen), "waiting": dict(waiting)})
        yield Page([], {"seen": seen, "waiting": waiting})

    def _deliveries(self) -> dict[str, Print]:
        """Every delivery and what lies in it: a folder, an archive with its volumes, or (under no
        name) the files that lie loose."""
        found: dict[str, Print] = {}
        there = [p for p in sorted(self._settings.folder.iterdir()) if p.name[0] != "."]
        for path in there:
            if path.is_dir():
                files = [p for p in path.rglob("*") if p.is_file() and not _hidden(p, path)]
                if files:
                    found[path.name] = {str(p.relative_to(path)): _print(p) for p in files}
            else:
                archive = VOLUME.search(path.name) is not None
                name = re.sub(r"\.\d{3}$", "", path.name) if archive else ""
                found.setdefault(name, {})[path.name] = _print(path)
        for name, print_ in found.items():  # the MD5 of an archive lies beside it
            if VOLUME.search(name):
                print_ |= {p.name: _print(p) for p in there if _is_sum(p, name)}
        loose = found.get("", {})
        if not any(Path(name).suffix.lower() in IMAGES for name in loose):
            found.pop("", None)
        return found

    def _complete(self, name: str, now: Print, before: Print | None) -> bool:
        quiet = self._clock() - max(changed for _, changed in now.values()) / 1e9
        if before == now and quiet >= self._settings.quiet_seconds:
            return True
        sums = _sums(self._home(name), now)
        images = [f for f in now if _weighs(f)]
        return bool(images) and all(f in sums and sums[f].of(self._home(name) / f) for f in images)

    def _home(self, name: str) -> Path:
        """The folder that the paths of a delivery start from."""
        inside = self._settings.folder / name
        return inside if name and inside.is_dir() else self._settings.folder

    def fetch(self, ref: Ref) -> list[pystac.Item]:
        """Check a delivery, unpack its archives, describe its images where they lie."""
        name = ref.data["name"]
        now = self._deliveries().get(name)
        if now is None:
            raise AcquireError(
                f"The delivery {name or 'of loose files'} is gone; deliver it again."
            )
        home = self._home(name)
        for file, checksum in _sums(home, now).items():
            if file in now and not checksum.of(home / file):
                raise WrongChecksum(f"{file} has other bytes than its MD5 says; deliver it again.")
        folders = self._folders(ref, home, now)
        graph = graph_in(folders) or graph_in(self._graphs(name))
        images = images_in(folders, infrared=self._settings.infrared)
        if home == self._settings.folder:  # loose files, not what lies in folders beside them
            images = [p for p in images if p.parent == home or self._unpacked in p.parents]
        if not images:
            raise AcquireError(
                f"The delivery {name} holds no image; take it away if that is meant."
            )
        if lacking := missing(images, folders):
            log.warning("delivery_incomplete", delivery=name, missing=len(lacking))
        settings = self._settings
        sensor = settings.sensor or Sensor.PVA
        return [
            tile_item(p, graph, sensor=sensor, departement=settings.departement) for p in images
        ]

    def _folders(self, ref: Ref, home: Path, now: Print) -> list[Path]:
        """Where the images and vector files of a delivery lie, archives unpacked."""
        archives: dict[str, list[Path]] = {}
        for file in sorted(now):
            if VOLUME.search(file):
                archives.setdefault(re.sub(r"\.\d{3}$", "", file), []).append(home / file)
        folders = [] if ref.data["name"] in archives else [home]
        for file, volumes in archives.items():
            target = self._unpacked / safe_name(f"{ref.key}/{file}")
            most = self._settings.max_bytes
            folders.append(unpack(volumes, target, wanted=delivered, most=most))
        return folders

    def _graphs(self, wanted: str) -> list[Path]:
        """Mosaic graphs that were delivered apart, of the same département and millésime."""
        edition, folders = EDITION.search(wanted), []
        for name, print_ in self._deliveries().items():
            found = EDITION.search(name)
            if edition and found and found[0] == edition[0] and _is_graph(name, print_):
                newest = max(changed for _, changed in print_.values())
                if self._clock() - newest / 1e9 >= self._settings.quiet_seconds:
                    ref = Ref(f"{name}@{newest}", name, {"name": name})
                    folders += self._folders(ref, self._home(name), print_)
        return folders

    def close(self) -> None:
        """Nothing to let go of."""


def _is_graph(name: str, files: Print) -> bool:
    """True for a delivery that only dates others."""
    return "GRAPHE" in name.upper() and not any(Path(f).suffix.lower() in IMAGES for f in files)


def _is_sum(path: Path, archive: str) -> bool:
    """True for ``X.md5``, ``X.7z.md5`` and ``X.7z.001.md5`` of the archive ``X.7z``."""
    stem = VOLUME.sub("", path.stem)
    return path.suffix.lower() == ".md5" and stem == VOLUME.sub("", archive)


def _hidden(path: Path, home: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(home).parts)


def _print(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _weighs(file: str) -> bool:
    return Path(file).suffix.lower() in IMAGES or VOLUME.search(file) is not None


def _sums(home: Path, files: Print) -> dict[str, Checksum]:
    """MD5 of files, from ``NAME.md5`` beside one or a list for a whole folder."""
    found: dict[str, Checksum] = {}
    for file, (size, _) in files.items():
        path = Path(file)
        if path.suffix.lower() != ".md5" or size > MOST_LIST:
            continue
        for name, digest in md5_list((home / file).read_text(errors="replace")).items():
            checksum = Checksum.md5(digest)
            target = str(path.parent / name) if name else str(path.with_suffix(""))
            if checksum is not None:
                found[target] = checksum
    return found
