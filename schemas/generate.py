"""The published contract, generated from the models: JSON Schema files and AsyncAPI 3.

``python -m schemas.generate`` rewrites ``schemas/published``; a test fails when it has drifted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from schemas import envelope
from schemas.legal import MATRIX
from schemas.nomenclature import COUVERTURE, CS_LEAVES, US_CODES, USAGE

PUBLISHED: Final = Path(__file__).parent / "published"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_OPERATIONS: Final[dict[str, tuple[str, str]]] = {
    envelope.ACQUISITION_TYPE: ("receive", "An image of some ground at some time exists."),
    envelope.CORRECTION_TYPE: ("receive", "A person, or a map of their own, says what is there."),
    envelope.CHANGE_TYPE: ("send", "What one acquisition did to the map."),
    envelope.ALERT_TYPE: ("send", "An alert entered a state."),
    envelope.DEAD_LETTER_TYPE: ("send", "An event could not have its effect."),
    envelope.TASK_TYPE: ("send", "An acquisition is to be judged (between the roles)."),
    envelope.JUDGEMENT_TYPE: ("receive", "What a detector says of a task (between the roles)."),
}


def _name(type_: str) -> str:
    return type_.removeprefix("fr.millesimed.").removesuffix(".v1")


def json_schema(type_: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of the data of one event type."""
    _, model = envelope.MODELS[type_]
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": _DIALECT, "$id": f"urn:millesimed:{_name(type_)}:v1", **schema}


def nomenclature_document() -> dict[str, Any]:
    """The nomenclature and the legal matrix as plain data."""
    return {
        "couverture": [
            {"code": c.code, "label": c.label, "colour": c.colour, "leaf": c.code in CS_LEAVES}
            for c in COUVERTURE.values()
        ],
        "usage": [
            {"code": c.code, "label": c.label, "colour": c.colour, "accepted": c.code in US_CODES}
            for c in USAGE.values()
        ],
        "artificialised": {cs: [us for us in US_CODES if us in MATRIX[cs]] for cs in CS_LEAVES},
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the topics."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    for type_, (topic, _) in envelope.MODELS.items():
        name = _name(type_)
        action, summary = _OPERATIONS[type_]
        label = re.sub(r"-(\w)", lambda m: m.group(1).upper(), name)
        channels[label] = {
            "address": topic,
            "messages": {label: {"$ref": f"#/components/messages/{label}"}},
            "bindings": {"kafka": {"topic": topic}},
        }
        operations[f"{action}{label[0].upper()}{label[1:]}"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{label}"},
            "summary": summary,
        }
        messages[label] = {
            "name": type_,
            "summary": summary,
            "contentType": "application/json",
            "headers": _headers(type_),
            "payload": {
                "schemaFormat": "application/schema+json;version=draft-2020-12",
                "schema": {"$ref": f"./{name}.schema.json"},
            },
            "bindings": {"kafka": {"key": {"type": "string"}}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "millesimed",
            "version": "1.0.0",
            "description": "Events of the OCS GE update service: CloudEvents 1.0, Kafka binary "
            "mode. Delivery is at least once; receivers deduplicate on ce_source and ce_id.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    }


def _headers(type_: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": {"type": "string"},
            "ce_source": {"type": "string"},
            "ce_type": {"type": "string", "const": type_},
            "ce_time": {"type": "string", "format": "date-time"},
        },
    }


def documents() -> dict[str, str]:
    """Every published file by name, as text."""
    files = {
        f"{_name(type_)}.schema.json": _pretty(json_schema(type_)) for type_ in envelope.MODELS
    }
    files["nomenclature.json"] = _pretty(nomenclature_document())
    files["asyncapi.yaml"] = yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True)
    return files


def _pretty(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> list[Path]:
    """Write every published file into a folder; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, text in documents().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


if __name__ == "__main__":
    write(PUBLISHED)
