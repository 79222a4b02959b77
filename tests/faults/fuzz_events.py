"""Coverage-guided fuzzing of the event parser and the CloudEvents binding.

``python -m tests.faults.fuzz_events CORPUS -runs=100000``: options are libFuzzer's.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["schemas", "cloudevents", "daemon.assets"]):
    from tests.faults.inputs import binary, changed, judged, valid, wrong_headers


def one(data: bytes) -> None:
    """Judge bytes as a structured event, and as the data of a binary one."""
    judged(data, {})
    value, headers = binary()
    judged(data, headers)
    judged(value, wrong_headers(headers, random.Random(data)))


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    """Half of the time the document is changed, else its bytes are."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        try:
            return json.dumps(changed(json.loads(data), chance)).encode()[:max_size]
        except (ValueError, RecursionError):
            pass
    return bytes(atheris.Mutate(data, max_size))


if __name__ == "__main__":
    corpus = Path(sys.argv[1])
    (corpus / "structured").write_bytes(valid()[0])
    (corpus / "binary").write_bytes(binary()[0])
    atheris.Setup(sys.argv, one, custom_mutator=mutated)
    atheris.Fuzz()
