"""``millesimed doctor``: is everything here that the service needs, and if not, what mends it.

Each check is a function that gives one finding or several; none changes anything, and none may
take longer than a few seconds. What a running service holds is not a fault.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException
from packaging.requirements import Requirement

from daemon.config import KafkaSettings, Settings
from schemas.errors import MillesimedError

PACKAGE: Final = "millesimed"
REACH_SECONDS: Final = 5.0
"""How long a broker or mail server may take to answer."""
LEAST_FREE: Final = 2 * 1024**3
"""Bytes of a disk below which a scene's scratch raster or a checkpoint may not fit."""
RASTERS: Final = ("GTiff", "COG", "JP2OpenJPEG", "PNG", "JPEG")
VECTORS: Final = ("GPKG", "ESRI Shapefile", "FlatGeobuf", "GeoJSON")


class Verdict(StrEnum):
    """How a check ended."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    """It works, but somebody should look."""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found, and what mends it where something is to be mended."""

    check: str
    verdict: Verdict
    found: str
    mend: str | None = None


Check = Callable[[Settings], Iterator[Finding]]


def _good(check: str, found: str) -> Finding:
    return Finding(check, Verdict.GOOD, found)


def _bad(check: str, found: str, mend: str) -> Finding:
    return Finding(check, Verdict.BAD, found, mend)


def _doubtful(check: str, found: str, mend: str) -> Finding:
    return Finding(check, Verdict.DOUBTFUL, found, mend)


def versions(_: Settings) -> Iterator[Finding]:
    """Python, and every package this one asks for."""
    python = platform.python_version()
    wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    if Requirement(f"python{wanted}").specifier.contains(python, prereleases=True):
        yield _good("python", python)
    else:
        yield _bad("python", python, f"Install Python {wanted}.")
    wrong = []
    for line in metadata.requires(PACKAGE) or []:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            have = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(have.partition("+")[0], prereleases=True):
            wrong.append(f"{requirement.name} {have} is not {requirement.specifier}")
    if wrong:
        yield _bad("packages", "; ".join(wrong), f"pip install --upgrade {PACKAGE}")
    else:
        yield _good("packages", f"{PACKAGE} {metadata.version(PACKAGE)} with all it asks for")


def map_engine(_: Settings) -> Iterator[Finding]:
    """DuckDB with its spatial extension, tried on a geometry."""
    import duckdb

    from updater.store import load_spatial

    try:
        with closing(duckdb.connect()) as connection:
            load_spatial(connection)
            row = connection.execute("SELECT ST_Area(ST_MakeEnvelope(0, 0, 2, 3))").fetchone()
    except (duckdb.Error, MillesimedError) as error:
        yield _bad(
            "duckdb",
            f"{duckdb.__version__}, spatial does not load ({str(error)[:120]})",
            f"pip install duckdb-extension-spatial=={duckdb.__version__}",
        )
        return
    if row != (6.0,):
        yield _bad("duckdb", f"spatial says {row} for an area of 6", "Install both anew.")
    else:
        yield _good("duckdb", f"{duckdb.__version__} with spatial")


def formats(_: Settings) -> Iterator[Finding]:
    """Drivers of GDAL for images and maps."""
    import pyogrio
    from rasterio import __gdal_version__
    from rasterio.env import Env

    with Env() as env:
        rasters = env.drivers()
    vectors = pyogrio.list_drivers(write=True)
    missing = [n for n in RASTERS if n not in rasters] + [n for n in VECTORS if n not in vectors]
    gdal = f"GDAL {__gdal_version__} (images), {pyogrio.__gdal_version_string__} (maps)"
    if missing:
        mend = "pip install --force-reinstall rasterio pyogrio"
        yield _bad("formats", f"{gdal}, without {', '.join(missing)}", mend)
    else:
        yield _good("formats", gdal)


def devices(settings: Settings) -> Iterator[Finding]:
    """Where torch runs, and whether the detectors' weights are whole."""
    import torch

    from detectors.errors import DetectionError
    from detectors.siamese import load

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        yield _good("device", f"torch {torch.__version__}, {', '.join(names)}")
    elif settings.device == "cuda":
        yield _bad(
            "device",
            f"torch {torch.__version__} sees no card",
            "Install the driver, or set `device` to auto.",
        )
    else:
        yield _good("device", f"torch {torch.__version__} on {torch.get_num_threads()} cores")
    try:
        load(settings.weights, "cpu")
    except (DetectionError, OSError) as error:
        yield _bad("weights", str(error), "Correct `weights`, or install the package anew.")
    else:
        yield _good("weights", str(settings.weights or "those of the package"))


def disks(settings: Settings) -> Iterator[Finding]:
    """Folders that are written to: there, writable, with room."""
    folders = {"temporary files": Path(tempfile.gettempdir())}
    for path in settings.db:
        folders[f"store {path.name}"] = path.parent
    if settings.db or settings.outbox:
        folders["outbox"] = settings.outbox_folder()
    if settings.inbox is not None:
        folders["inbox"] = settings.inbox_folder()
    for name, folder in folders.items():
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            yield _bad(name, f"{folder} may not be written", "Give the service the right to it.")
            continue
        free = shutil.disk_usage(there).free
        text = f"{folder}, {free / 1024**3:.1f} GiB free"
        if free < LEAST_FREE:
            yield _doubtful(name, text, "Make room: a scene may need 2 GiB.")
        else:
            yield _good(name, text)


def stores(settings: Settings) -> Iterator[Finding]:
    """Every store opens, or is held by the service that runs."""
    from updater.errors import StoreError, StoreLocked
    from updater.store import Store, log_bytes

    if not settings.db:
        yield _doubtful("store", "none is configured", "millesimed init --help")
    for path in settings.db:
        name = f"store {path.name}"
        if log_bytes(path) and not Store.held(path):
            text = "was not closed cleanly"
            yield _doubtful(name, text, "Nothing: the next start mends it.")
            continue
        try:
            with Store.open(path, read_only=True) as store:
                yield _good(name, f"{store.territory}, {store.millesime}, {store.crs}")
        except StoreLocked:
            yield _good(name, "in use by another process")
        except StoreError as error:
            yield _bad(name, str(error), "See docs/operations.md; restore a backup if need be.")


def broker(settings: Settings) -> Iterator[Finding]:
    """Kafka answers, and has the topics."""
    kafka = settings.kafka
    if kafka is None:
        return
    from confluent_kafka.admin import AdminClient

    from daemon.kafka_errors import QUIET, made

    client = made(AdminClient, {"bootstrap.servers": kafka.servers, **QUIET, **kafka.options})
    try:
        there = client.list_topics(timeout=REACH_SECONDS).topics
    except KafkaException as error:
        yield _bad(
            "kafka",
            f"{kafka.servers} does not answer ({error.args[0].name()})",
            "Start the broker, or correct `kafka.servers` and `kafka.options`.",
        )
        return
    between = [kafka.tasks, kafka.judgements]  # of the roles, which one process does without
    split = settings.exchange is not None or any(name in there for name in between)
    wanted = _topics(kafka) + between * split
    missing = [name for name in wanted if name not in there]
    if missing:
        yield _doubtful("kafka", f"{kafka.servers} has no {', '.join(missing)}", "Create them.")
    else:
        yield _good("kafka", f"{kafka.servers} with every topic")


def _topics(kafka: KafkaSettings) -> list[str]:
    return [kafka.acquisitions, kafka.changes, kafka.alerts, kafka.dead_letters]


def mail(settings: Settings) -> Iterator[Finding]:
    """The mail server accepts a connection."""
    smtp = settings.smtp
    if smtp is None:
        return
    place = f"{smtp.host}:{smtp.port}"
    try:
        socket.create_connection((smtp.host, smtp.port), timeout=REACH_SECONDS).close()
    except OSError as error:
        text = f"{place} does not answer ({error.strerror or error})"
        yield _bad("mail", text, "Start the mail server, or correct `smtp.host` and `smtp.port`.")
    else:
        yield _good("mail", place)


def http(settings: Settings) -> Iterator[Finding]:
    """The port is free, or the service answers on it."""
    if not settings.http.enabled or settings.http.port == 0:
        return
    import httpx

    place = f"{settings.http.host}:{settings.http.port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.http.host, settings.http.port))
        except OSError:
            pass
        else:
            yield _good("http", f"{place} is free")
            return
    try:
        answer = httpx.get(f"http://{place}/healthz", timeout=REACH_SECONDS)
    except httpx.HTTPError:
        answer = None
    if answer is not None and answer.text.strip() == "ok":
        yield _good("http", f"the service answers on {place}")
    else:
        yield _bad("http", f"{place} is taken by something else", "Set another `http.port`.")


CHECKS: Final[tuple[Check, ...]] = (
    versions,
    map_engine,
    formats,
    devices,
    disks,
    stores,
    broker,
    mail,
    http,
)


def examine(settings: Settings) -> list[Finding]:
    """Every check; one that breaks down itself is a finding, too."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(settings)
        except Exception as error:  # noqa: BLE001 - whatever breaks here is what was asked for
            name, text = check.__name__, f"{type(error).__name__}: {str(error)[:200]}"
            found.append(_bad(name, text, "Report this."))
    return found


def report(found: list[Finding]) -> dict[str, Any]:
    """The findings as ``--json`` gives them."""
    return {
        "healthy": all(finding.verdict is not Verdict.BAD for finding in found),
        "platform": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "python": sys.version.split()[0],
        "findings": [asdict(finding) for finding in found],
    }
