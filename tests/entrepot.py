"""The platform's API Entrepôt on loopback: real state, real files, statuses that move as they do
there, and every fault a client may meet.

Statuses advance when they are asked for. Checks compute the MD5 of what lies here; the processing
reads the files and keeps tables, applying deletes, updates and inserts in that order.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import geopandas as gpd
import pandas as pd
import pyogrio
import shapely
from pyogrio.errors import DataSourceError

TOKEN = "entrepot-Zq7-2kLm9"
STANDARD, VECTOR, EXTRA = "check-standard", "check-vector", "check-extra"
INTEGRATION, COPY, PYRAMID = "vector-to-db", "copy-archive", "pyramid"
ENDPOINT = "endpoint-wfs"
ROOT = "/api/datastores/here/"
UNDER_WAY = {"WAITING", "PROGRESS"}


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, *words: str, after: str | None = None) -> None:
        super().__init__(status)
        self.status, self.words, self.after = status, list(words), after


@dataclass
class Fault:
    """What happens to the next calls of some kind: ``status`` instead of an answer, the connection
    cut after ``cut`` bytes of the body, or after the effect (``drop``), or ``run`` before it."""

    calls: str
    times: int = 1
    status: int | None = None
    after: str | None = None
    cut: int | None = None
    drop: bool = False
    run: Callable[[], None] | None = None


@dataclass
class Table:
    """A table of a database."""

    key: str | None
    frame: gpd.GeoDataFrame


@dataclass
class Platform:
    """One datastore."""

    folder: Path
    things: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    logins: list[dict[str, str]] = field(default_factory=list)
    tables: dict[str, dict[str, Table]] = field(default_factory=dict)
    processing_ends: list[str] = field(default_factory=list)
    offering_ends: list[str] = field(default_factory=list)
    corrupt: int = 0
    """How many files to damage when they come in, at their size."""
    url: str = ""
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def every(self, kind: str) -> list[dict[str, Any]]:
        return list(self.things.setdefault(kind, {}).values())

    def only(self, kind: str) -> dict[str, Any]:
        (found,) = self.every(kind)
        return found

    def new(self, kind: str, status: str, **more: Any) -> dict[str, Any]:
        made = self.things.setdefault(kind, {})
        number = next(self.numbers)
        id_ = f"{kind.partition('/')[0]}-{number:05d}"
        made[id_] = {
            "_id": id_,
            "status": status,
            "tags": {},
            "creation": f"2026-01-01T00:00:00.{number:06d}Z",
            **more,
        }
        return made[id_]

    def of(self, kind: str, id_: str) -> dict[str, Any]:
        try:
            return self.things.setdefault(kind, {})[id_]
        except KeyError:
            raise Refusal(404, f"no {kind} {id_}") from None

    def home(self, id_: str) -> Path:
        return self.folder / id_

    def writes(self) -> list[str]:
        return [call for call in self.calls if not call.startswith("GET ")]


def files_of(folder: Path) -> dict[str, Path]:
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}


# what is asked for


def answer(
    platform: Platform, method: str, path: str, query: dict[str, str], body: Any
) -> tuple[Any, dict[str, str]]:
    """The document and headers of an answer."""
    parts = path.split("/")
    kind = "processings/executions" if path.startswith("processings/executions") else parts[0]
    if path.startswith("checks/executions"):
        kind = "checks/executions"
    rest = parts[kind.count("/") + 1 :]
    id_, verb = [*rest, None, None][:2]
    if id_ is None:
        return create(platform, kind, body) if method == "POST" else listed(platform, kind, query)
    thing = platform.of(kind, id_)
    match (method, kind, verb):
        case ("GET", _, None):
            advance(platform, kind, thing)
            return dict(thing), {}
        case ("DELETE", _, None):
            del platform.things[kind][id_]
            return None, {}
        case ("POST", _, "tags"):
            thing["tags"] = {**thing["tags"], **body}
            return None, {}
        case ("GET", _, "logs"):
            return thing.get("logs", []), {}
        case ("POST", "processings/executions", "launch"):
            must(thing["status"] == "CREATED", 400, "already launched")
            thing["status"] = "WAITING"
            return None, {}
        case ("PUT", "configurations", None):
            thing.update(checked_configuration(platform, body))
            return dict(thing), {}
        case (_, "configurations", "offerings"):
            if method == "GET":
                ours = [o for o in platform.every("offerings") if o["configuration"] == id_]
                return [{"_id": o["_id"], "type": o["type"]} for o in ours], {}
            return offer(platform, thing, body), {}
        case ("PUT", "offerings", None):
            thing["status"] = "MODIFYING"
            return None, {}
        case (_, "uploads", _):
            return of_upload(platform, thing, method, verb, query, body), {}
    raise Refusal(404, "no such route")


def must(holds: bool, status: int, words: str) -> None:
    if not holds:
        raise Refusal(status, words)


def listed(platform: Platform, kind: str, query: dict[str, str]) -> tuple[Any, dict[str, str]]:
    rows = platform.every(kind)
    for name, value in query.items():
        if name.startswith("tags["):
            rows = [r for r in rows if r["tags"].get(name[5:-1]) == value]
        elif name == "output_stored_data":
            rows = [r for r in rows if r["output"]["stored_data"]["_id"] == value]
        elif name not in {"page", "limit"}:
            rows = [r for r in rows if value in str(r.get(name))]  # as loose as it may be
    page, limit = int(query.get("page", 1)), int(query.get("limit", 10))
    shown = rows[(page - 1) * limit : page * limit]
    head = {"Content-Range": f"{(page - 1) * limit}-{page * limit}/{len(rows)}"}
    short = ("_id", "name", "type")
    return [{k: r[k] for k in short if k in r} for r in shown], head


def create(platform: Platform, kind: str, body: Any) -> tuple[Any, dict[str, str]]:
    match kind:
        case "uploads":
            must({"name", "description", "type", "srs"} <= body.keys(), 400, "fields are missing")
            made = platform.new(kind, "OPEN", **body)
            platform.home(made["_id"]).mkdir(parents=True)
        case "processings/executions":
            made = process(platform, body)
        case "configurations":
            made = platform.new(kind, "UNPUBLISHED", **checked_configuration(platform, body))
            taken = [c for c in platform.every(kind) if c["layer_name"] == made["layer_name"]]
            if len(taken) > 1:
                del platform.things[kind][made["_id"]]
                raise Refusal(409, f"layer name {made['layer_name']} taken")
        case _:
            raise Refusal(404, "no such route")
    return dict(made), {}


def of_upload(
    platform: Platform,
    upload: dict[str, Any],
    method: str,
    verb: str,
    query: dict[str, str],
    body: Any,
) -> Any:
    home = platform.home(upload["_id"])
    match (method, verb):
        case ("GET", "tree"):
            return tree_of(home)
        case ("GET", "checks"):
            advance(platform, "uploads", upload)
            return checks_of(platform, upload)
        case ("POST", "checks"):
            must(upload["status"] == "CLOSED", 400, "the delivery is not closed")
            ask(platform, upload, body)
        case ("POST", "open"):
            must(upload["status"] in {"CLOSED", "UNSTABLE"}, 400, "it is not closed")
            upload["status"] = "OPEN"
        case ("POST", "close"):
            must(upload["status"] == "OPEN", 400, "it is not open")
            must(any(files_of(home)), 400, "it is empty")
            for old in platform.every("checks/executions"):
                if old["upload"] == upload["_id"]:
                    del platform.things["checks/executions"][old["_id"]]
            usual = [STANDARD] + [VECTOR] * (upload["type"] == "VECTOR")
            ask(platform, upload, usual)
        case ("POST" | "DELETE", "data" | "md5"):
            must(upload["status"] == "OPEN", 400, "the delivery is not open")
            name, content = body if method == "POST" else (None, None)
            place = home / (query.get("path") or name)
            if method == "DELETE":
                must(place.is_file(), 404, "no such file")
                place.unlink()
                return None
            must(not place.exists(), 409, "the file is there already")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(damaged(platform, content) if verb == "data" else content)
        case _:
            raise Refusal(404, "no such route")
    return None


def damaged(platform: Platform, content: bytes) -> bytes:
    if platform.corrupt <= 0:
        return content
    platform.corrupt -= 1
    return bytes([content[0] ^ 1]) + content[1:]


def tree_of(home: Path) -> list[dict[str, Any]]:
    """As the platform shows it: data under one folder, MD5 files beside that."""
    sums = [p for p in home.iterdir() if p.suffix == ".md5"]
    found = [{"type": "FILE", "name": p.name, "size": p.stat().st_size} for p in sums]
    folders = [
        {
            "type": "DIRECTORY",
            "name": sub.name,
            "size": 0,
            "children": [
                {"type": "FILE", "name": p.name, "size": p.stat().st_size}
                for p in sorted(sub.iterdir())
            ],
        }
        for sub in sorted(home.iterdir())
        if sub.is_dir()
    ]
    return [{"type": "DIRECTORY", "name": "data", "size": 0, "children": folders}, *found]


def ask(platform: Platform, upload: dict[str, Any], checks: list[str]) -> None:
    for check in checks:
        platform.new(
            "checks/executions",
            "WAITING",
            upload=upload["_id"],
            check={"_id": check, "name": f"Vérification {check.removeprefix('check-')}"},
        )
    upload["status"] = "CHECKING"


def checks_of(platform: Platform, upload: dict[str, Any]) -> dict[str, list[Any]]:
    names = {"WAITING": "asked", "PROGRESS": "in_progress", "SUCCESS": "passed"}
    found: dict[str, list[Any]] = {n: [] for n in ("asked", "in_progress", "passed", "failed")}
    for one in platform.every("checks/executions"):
        if one["upload"] == upload["_id"]:
            group = names.get(one["status"], "failed")
            found[group].append({"_id": one["_id"], "check": one["check"]})
    return found


def checked_configuration(platform: Platform, body: Any) -> dict[str, Any]:
    must({"type", "name", "layer_name", "type_infos"} <= body.keys(), 400, "fields are missing")
    for used in body["type_infos"]["used_data"]:
        stored = platform.of("stored_data", used["stored_data"])
        must(stored["status"] == "GENERATED", 400, "the stored data is not generated")
        for relation in used.get("relations", []):
            table = relation.get("native_name") or relation.get("name")
            must(table in platform.tables[stored["_id"]], 400, f"no table {table}")
    return dict(body)


def offer(platform: Platform, configuration: dict[str, Any], body: Any) -> dict[str, Any]:
    there = {(o["configuration"], o["endpoint"]["_id"]) for o in platform.every("offerings")}
    must((configuration["_id"], body["endpoint"]) not in there, 409, "it is offered there already")
    return dict(
        platform.new(
            "offerings",
            "PUBLISHING",
            type=configuration["type"],
            configuration=configuration["_id"],
            endpoint={"_id": body["endpoint"]},
            open=body["open"],
            urls=[
                {
                    "type": configuration["type"],
                    "url": f"https://x.example/{configuration['layer_name']}",
                }
            ],
            shows=None,
        )
    )


# what happens in between


def advance(platform: Platform, kind: str, thing: dict[str, Any]) -> None:
    """One step of time for what somebody looks at."""
    match kind:
        case "uploads" if thing["status"] == "CHECKING":
            _advance_checks(platform, thing)
        case "processings/executions":
            if thing["status"] == "WAITING":
                thing["status"] = "PROGRESS"
                stored = platform.of("stored_data", thing["output"]["stored_data"]["_id"])
                stored["status"] = "MODIFYING" if thing["onto"] else "GENERATING"
            elif thing["status"] == "PROGRESS":
                _end(platform, thing)
        case "stored_data" if thing.get("soon"):
            thing["status"] = thing.pop("soon")
        case "offerings" if thing["status"] in {"PUBLISHING", "MODIFYING"}:
            ends = platform.offering_ends.pop(0) if platform.offering_ends else "PUBLISHED"
            configuration = platform.of("configurations", thing["configuration"])
            thing["status"] = ends
            if ends == "PUBLISHED":
                configuration["status"] = "PUBLISHED"
                thing["shows"] = json.loads(json.dumps(configuration["type_infos"]))


def _advance_checks(platform: Platform, upload: dict[str, Any]) -> None:
    ours = [c for c in platform.every("checks/executions") if c["upload"] == upload["_id"]]
    for one in ours:
        if one["status"] == "WAITING":
            one["status"] = "PROGRESS"
            return
        if one["status"] == "PROGRESS":
            home = platform.home(upload["_id"])
            wrong = CHECKS[one["check"]["_id"]](home)
            one["status"] = "FAILURE" if wrong else "SUCCESS"
            one["logs"] = ["Début", *wrong, "Fin"] if wrong else ["Début", "Fin"]
            break
    if not any(c["status"] in UNDER_WAY for c in ours):
        failed = any(c["status"] == "FAILURE" for c in ours)
        upload["status"] = "UNSTABLE" if failed else "CLOSED"


def check_sums(home: Path) -> list[str]:
    wrong = []
    for sums in home.glob("*.md5"):
        for line in sums.read_text().splitlines():
            said, _, name = line.partition("  ")
            place = home / name
            if not place.is_file():
                wrong.append(f"{name} est absent.")
            elif hashlib.md5(place.read_bytes()).hexdigest() != said:
                wrong.append(f"La signature de {name} diffère.")
    return wrong


def check_vector(home: Path) -> list[str]:
    wrong = []
    for name, place in files_of(home).items():
        if place.suffix == ".gpkg":
            try:
                pyogrio.list_layers(place)
            except DataSourceError as error:
                wrong.append(f"{name} est illisible ({error}).")
    return wrong


CHECKS = {STANDARD: check_sums, VECTOR: check_vector, EXTRA: lambda _: []}


def process(platform: Platform, body: Any) -> dict[str, Any]:
    must(body["processing"] in {INTEGRATION, COPY, PYRAMID}, 404, "no such processing")
    inputs: dict[str, list[Any]] = {"upload": [], "stored_data": []}
    for kind, name, wanted in (
        ("uploads", "upload", "CLOSED"),
        ("stored_data", "stored_data", "GENERATED"),
    ):
        for id_ in body["inputs"].get(name, []):
            found = platform.of(kind, id_)
            must(found["status"] == wanted, 400, f"{id_} is {found['status']}")
            inputs[name].append({"_id": id_, "name": found["name"], "status": found["status"]})
    output = body["output"]["stored_data"]
    onto = "id" in output
    if onto:
        stored = platform.of("stored_data", output["id"])
        must(stored["status"] == "GENERATED", 409, f"it is {stored['status']}")
    else:
        kind = {INTEGRATION: "VECTOR-DB", COPY: "ARCHIVE", PYRAMID: "ROK4-PYRAMID-VECTOR"}
        stored = platform.new(
            "stored_data", "CREATED", name=output["name"], type=kind[body["processing"]]
        )
        platform.home(stored["_id"]).mkdir(parents=True)
        platform.tables[stored["_id"]] = {}
    return platform.new(
        "processings/executions",
        "CREATED",
        processing={"_id": body["processing"]},
        inputs=inputs,
        output={"stored_data": {"_id": stored["_id"], "name": stored["name"]}},
        parameters=body["parameters"],
        onto=onto,
    )


def _end(platform: Platform, execution: dict[str, Any]) -> None:
    stored = platform.of("stored_data", execution["output"]["stored_data"]["_id"])
    ends = platform.processing_ends.pop(0) if platform.processing_ends else "SUCCESS"
    execution["logs"] = ["Traitement lancé"]
    if ends == "SUCCESS":
        try:
            _take_in(platform, execution, stored)
        except (ValueError, KeyError) as error:
            ends = "FAILURE"
            execution["logs"].append(f"ERREUR: {error}.")
    else:
        execution["logs"].append("ERREUR: plus de place sur le cluster.")
    execution["status"] = ends
    stored["soon"] = "GENERATED" if ends == "SUCCESS" else "UNSTABLE"


def _take_in(platform: Platform, execution: dict[str, Any], stored: dict[str, Any]) -> None:
    home, tables = platform.home(stored["_id"]), platform.tables[stored["_id"]]
    for source in execution["inputs"]["stored_data"]:
        (home / "tiles.txt").write_text(f"{source['_id']} {sorted(execution['parameters'])}")
    for entry in execution["inputs"]["upload"]:
        here = {
            k: p for k, p in files_of(platform.home(entry["_id"])).items() if p.suffix != ".md5"
        }
        for path in here.values():
            (home / path.name).write_bytes(path.read_bytes())
        if execution["processing"]["_id"] == INTEGRATION:
            apply(tables, list(here.values()), execution["parameters"])


def apply(tables: dict[str, Table], files: list[Path], parameters: dict[str, Any]) -> None:
    """Structure, deletes, updates, inserts."""
    by_suffix: dict[str, list[Path]] = {}
    for path in files:
        by_suffix.setdefault(path.suffix, []).append(path)
    for path in by_suffix.get(".sql", []):
        for name, columns in re.findall(r"CREATE TABLE (\w+) \((.*?)\n\);", path.read_text(), re.S):
            key = re.search(r"(\w+) [\w ]+ PRIMARY KEY", columns)
            tables[name] = Table(key[1] if key else None, gpd.GeoDataFrame())
    for path in by_suffix.get(".delete", []) if parameters.get("delete") else []:
        table = tables[path.stem]
        for row in csv.DictReader(io.StringIO(path.read_text())):
            hit = pd.Series(True, index=table.frame.index)
            for column, value in row.items():
                hit &= table.frame[column].astype(str) == value
            table.frame = table.frame[~hit]
    for path in by_suffix.get(".update", []) if parameters.get("update") else []:
        table = tables[path.stem]
        if table.key is None:
            raise ValueError(f"{path.stem} has no primary key")
        update(table, list(csv.DictReader(io.StringIO(path.read_text()))))
    for path in by_suffix.get(".gpkg", []):
        for layer, shape in pyogrio.list_layers(path):
            if shape is None:
                continue
            rows = gpd.read_file(path, layer=layer)
            table = tables.setdefault(layer.lower(), Table(None, gpd.GeoDataFrame()))
            both = pd.concat([table.frame, rows], ignore_index=True) if len(table.frame) else rows
            if table.key and both[table.key].duplicated().any():
                raise ValueError("duplicate key value violates unique constraint")
            table.frame = both


def update(table: Table, rows: list[dict[str, str]]) -> None:
    frame = table.frame.set_index(table.key)
    for row in rows:
        name = row.pop(table.key)
        if name not in frame.index:
            raise KeyError(f"no row {name}")
        for column, text in row.items():
            place = "geometry" if column == "geom" else column
            kind = frame[place].dtype
            if place == "geometry":
                frame.at[name, place] = shapely.from_wkt(text)
            elif pd.api.types.is_bool_dtype(kind):
                frame.at[name, place] = {"true": True, "false": False}[text]
            elif pd.api.types.is_numeric_dtype(kind):
                frame.at[name, place] = float(text) if kind.kind == "f" else int(text)
            else:
                frame.at[name, place] = text
    table.frame = frame.reset_index()


# the wire


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that is killed is what some tests are about."""


def _handler(platform: Platform, turn: threading.Lock) -> type[BaseHTTPRequestHandler]:
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits for an acknowledgement

        def _do(self) -> None:
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
            path = parts.path.removeprefix(ROOT)
            call = f"{self.command} {path}"
            fault = next((f for f in platform.faults if re.fullmatch(f.calls, call)), None)
            if fault is not None:
                fault.times -= 1
                if fault.times <= 0:
                    platform.faults.remove(fault)
            length = int(self.headers.get("Content-Length") or 0)
            if fault is not None and fault.cut is not None:
                self._cut(path, query, self.rfile.read(min(fault.cut, length)), fault)
                return
            raw = self.rfile.read(length)
            with turn:
                platform.calls.append(call)
                if fault is not None and fault.run is not None:
                    fault.run()
                try:
                    if fault is not None and fault.status is not None:
                        raise Refusal(fault.status, "on purpose", after=fault.after)
                    if path == "/token":
                        document, head = self._login(raw), {}
                    else:
                        self._admit()
                        body = self._body(raw)
                        document, head = answer(platform, self.command, path, query, body)
                    status = 200
                except Refusal as error:
                    document = {"error_description": error.words}
                    head = {"Retry-After": error.after} if error.after else {}
                    status = error.status
            if fault is not None and fault.drop:
                self.close_connection = True
                self.connection.close()
                return
            self._send(status, document, head)

        def _send(self, status: int, document: Any, head: dict[str, str]) -> None:
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            for name, value in head.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _cut(self, path: str, query: dict[str, str], raw: bytes, fault: Fault) -> None:
            """Keep the half of a file that came."""
            upload = path.split("/")[1]
            with turn:
                platform.calls.append(f"{self.command} {path}")
                place = platform.home(upload) / query["path"]
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(raw.partition(b"\r\n\r\n")[2])
            if fault.run is not None:
                fault.run()
            self.close_connection = True
            self.connection.close()

        def _login(self, raw: bytes) -> Any:
            form = {k: v[0] for k, v in parse_qs(raw.decode()).items()}
            platform.logins.append(form)
            if form.get("client_secret") != "right":
                raise Refusal(401, "invalid_client")
            token = f"{TOKEN}-{len(platform.logins)}"
            platform.tokens.add(token)
            return {"access_token": token, "expires_in": 300}

        def _admit(self) -> None:
            said = self.headers.get("Authorization", "")
            if said.removeprefix("Bearer ") not in platform.tokens:
                raise Refusal(401, f"you said {said}")

        def _body(self, raw: bytes) -> Any:
            kind = self.headers.get("Content-Type", "")
            if kind.startswith("multipart/"):
                boundary = kind.partition("boundary=")[2].encode()
                head, _, rest = raw.partition(b"\r\n\r\n")
                name = re.search(rb'filename="([^"]+)"', head)
                assert name is not None
                return name[1].decode(), rest[: rest.rindex(b"\r\n--" + boundary)]
            return json.loads(raw) if raw else None

        do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    return Answers


@contextmanager
def platform(folder: Path) -> Iterator[Platform]:
    """A platform that listens."""
    found = Platform(folder)
    server = _Server(("127.0.0.1", 0), _handler(found, threading.Lock()))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def configuration(found: Platform, folder: Path, **more: str) -> Path:
    """A configuration file that publishes there."""
    tables = {"service": f'type = "WFS"\nendpoint = "{ENDPOINT}"', **more}
    top = tables.pop("top", f'processing = "{INTEGRATION}"')
    path = folder / "m.toml"
    path.write_text(
        f'[publication]\nurl = "{found.url}/api"\ndatastore = "here"\n{top}\n'
        f'networks = ["127.0.0.0/8"]\ntoken_url = "{found.url}/token"\n'
        "poll_seconds = 0.01\ncalls_per_second = 1000\n"
        + "".join(f"[publication.{name}]\n{text}\n" for name, text in tables.items())
    )
    return path
