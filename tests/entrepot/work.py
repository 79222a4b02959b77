"""What happens between two calls: checks, processings, offerings, one step at each look."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyogrio
from pyogrio.errors import DataSourceError

from tests.entrepot.state import (
    COPY,
    EXTRA,
    INTEGRATION,
    PYRAMID,
    STANDARD,
    UNDER_WAY,
    VECTOR,
    Platform,
    files_of,
    must,
)
from tests.entrepot.tables import apply


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
