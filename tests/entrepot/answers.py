"""What the platform answers to a call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.entrepot.state import STANDARD, VECTOR, Platform, Refusal, files_of, must
from tests.entrepot.work import advance, process


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
            must(kind != "stored_data" or id_ not in shown(platform), 409, "it is published")
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


def shown(platform: Platform) -> set[str]:
    """Stored data that offerings show or configurations use."""
    told = [o["shows"] for o in platform.every("offerings") if o["shows"]]
    told += [c["type_infos"] for c in platform.every("configurations")]
    return {used["stored_data"] for one in told for used in one["used_data"]}


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
