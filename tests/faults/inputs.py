"""Events gone wrong: seeded, structure-aware changes of valid ones, and what must hold of them."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from daemon.assets import asset_path
from daemon.locate import footprint_of
from schemas.envelope import AcquisitionEvent, parse_acquisition, to_kafka, to_structured
from schemas.errors import MillesimedError
from tests.test_envelope import event, item

Input = tuple[bytes, dict[str, bytes]]

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, 1e-320, -0.0, 0.1,
    float("nan"), float("inf"), "", " ", "\0", "a\0b", "\ud800", "é", "e\u0301", "\u202e", "\ufeff",
    "a" * 300, "a" * 5000, "../" * 40 + "etc/passwd", "/etc/passwd", "/dev/zero", "/proc/self/mem",
    "file:///%00", "file:///%2e%2e/%2e%2e/a", "file:///%zz", "file://[bad/a", "/vsicurl/http://h/a",
    "http://h/a.tif", "//host/a.tif", "file:////vsimem/a", "a;b?c#d", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59", "2024-02-30T00:00:00Z", "2024-06-18", "24", "EPSG:999999", "EPSG:",
    "1.0", "0.3", "2.0", [], {}, [[]], [None], {"": None}, [0] * 2000, "Polygon", "MultiPolygon",
    "GeometryCollection", "Point", [[[[0, 0]]]], [[0, 0], [0, 0], [0, 0], [0, 0]], [180, 90],
    [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
    [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]], [[[0, 0], [1, 0], [2, 0], [0, 0]]],
    "1220" + "0" * 64, "ffff", "D032", "D02A", "D999", "%s%n", "{{7*7}}", "'; DROP TABLE events;--",
)  # fmt: skip
"""Values that have broken programs before."""
ODD_BYTES = (b"{", b"[", b'"', b"\\u0000", b"\\ud800", b"NaN", b"\0", b"1e999")


def valid() -> Input:
    """A valid event in structured mode."""
    return to_structured(event()), {}


def binary() -> Input:
    """The same in Kafka's binary mode."""
    message = to_kafka(event())
    return message.value, dict(message.headers)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document, as the keys that lead to it."""
    found = [path]
    if isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            found += places(child, (*path, key))
    return found


def changed(document: Any, chance: random.Random) -> Any:
    """A document with one to three of its places replaced, dropped, doubled, renamed or moved."""
    document = copy.deepcopy(document)
    for _ in range(chance.choice((1, 1, 2, 3))):
        paths = [path for path in places(document) if path]
        if not paths:
            return chance.choice(ODD)
        path = chance.choice(paths)
        holder = document
        for key in path[:-1]:
            holder = holder[key]
        _change(holder, path[-1], chance, document)
    return document


def _change(holder: Any, key: Any, chance: random.Random, document: Any) -> None:
    match chance.randrange(7):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(chance.choice(ODD))] = holder.pop(key)
        case 2:
            holder[key] = [copy.deepcopy(holder[key])] * chance.choice((1, 2, 8))
        case 3:
            other = document
            for step in chance.choice(places(document)):
                other = other[step]
            holder[key] = copy.deepcopy(other)
        case 4 if isinstance(holder[key], str):
            holder[key] = scrambled(holder[key].encode("utf-8", "replace"), chance).decode(
                "utf-8", "replace"
            )
        case 5 if isinstance(holder[key], int | float) and abs(holder[key]) < 1e200:
            holder[key] = holder[key] * chance.choice((-1, 0, 1e3, 1e18, 0.5)) + chance.random()
        case _:
            holder[key] = copy.deepcopy(chance.choice(ODD))


def scrambled(value: bytes, chance: random.Random) -> bytes:
    """Bytes with a few of them flipped, cut out, doubled or put in."""
    body = bytearray(value)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(body) + 1)
        match chance.randrange(5):
            case 0 if at < len(body):
                body[at] ^= 1 << chance.randrange(8)
            case 1:
                del body[at : at + chance.choice((1, 4, 64))]
            case 2:
                body[at:at] = body[at : at + chance.choice((1, 8, 200))]
            case 3:
                body[at:at] = chance.randbytes(chance.choice((1, 3)))
            case _:
                body[at:at] = chance.choice(ODD_BYTES)
    return bytes(body)


def wrong(chance: random.Random) -> Input:
    """One event that may be wrong in its document, its headers or its bytes."""
    value, headers = valid() if chance.random() < 0.6 else binary()
    kind = chance.randrange(10)
    if kind < 6:
        value = json.dumps(changed(json.loads(value), chance)).encode()
    elif kind < 8:
        value = scrambled(value, chance)
    if headers and kind > 4:
        headers = wrong_headers(headers, chance)
    return value, headers


def wrong_headers(headers: dict[str, bytes], chance: random.Random) -> dict[str, bytes]:
    """Headers with one of them gone, scrambled, odd or renamed."""
    found = dict(headers)
    name = chance.choice(list(found))
    match chance.randrange(5):
        case 0:
            del found[name]
        case 1:
            found[name] = scrambled(found[name], chance)
        case 2:
            found[name] = str(chance.choice(ODD)).encode("utf-8", "replace")
        case 3:
            found[name.upper()] = found.pop(name)
        case _:
            found[f"ce_{chance.choice(ODD)}"[:60]] = chance.randbytes(5)
    return found


def is_sentence(text: str) -> bool:
    """One line that ends in a full stop and says, after a semicolon, what to do."""
    return text.endswith(".") and "; " in text and "\n" not in text and len(text) < 1200


def judged(value: bytes, headers: dict[str, bytes]) -> AcquisitionEvent | MillesimedError:
    """What became of an input; anything but an event or a sentence is an error of the program."""
    try:
        found = parse_acquisition(value, headers)
        assert found.key and found.id and found.source
        footprint_of(found.item)
        asset_path(found.item.image)
    except MillesimedError as error:
        assert error.reason != "internal"
        assert is_sentence(str(error)), str(error)
        return error
    return found


def bombs() -> dict[str, bytes]:
    """Inputs of the largest size that are made to be slow or to swell."""
    size = 990_000

    def with_item(**more: Any) -> bytes:
        envelope = json.loads(to_structured(event()))
        return json.dumps(envelope | {"data": item(**more)}).encode()

    ring = [[0.5, "x"]] * (size // 14)
    return {
        "nested lists": b"[" * size,
        "nested objects": b'{"a":' * (size // 6),
        "many small lists": b"[" + b"[]," * (size // 4) + b"[]]",
        "a long number": b"9" * size,
        "a long string": b'"' + b"\\u00e9" * (size // 6) + b'"',
        "half a string": b'"' + b"a" * size,
        "bad positions": with_item(geometry={"type": "Polygon", "coordinates": [ring]}),
        "bad rings": with_item(geometry={"type": "Polygon", "coordinates": [[]] * 9_999}),
        "bad polygons": with_item(geometry={"type": "MultiPolygon", "coordinates": [[0]] * 9_999}),
        "good positions": with_item(
            geometry={"type": "Polygon", "coordinates": [[[0.5, 43.5]] * 70_000]}
        ),
        "bad links": with_item(links=[0] * 300_000),
        "bad extensions": with_item(stac_extensions=[0] * 300_000),
        "many assets": with_item(assets={f"a{n}": {} for n in range(60_000)}),
        "many bad fields": with_item(assets={f"a{n}": {"href": 0, "roles": 0} for n in range(64)}),
        "a long id": with_item(id="a" * 900_000),
        "a long key": json.dumps({"a" * 900_000: 1, "specversion": "1.0"}).encode(),
        "many keys": json.dumps({f"k{n}": n for n in range(60_000)}).encode(),
        "white space": b" " * size,
        "zeros": b"\0" * size,
    }  # fmt: skip
