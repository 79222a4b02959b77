"""Coverage-guided fuzzing of the importer, from GeoJSON documents on.

``python -m tests.faults.fuzz_maps CORPUS -runs=20000``: options are libFuzzer's. Other formats are
damaged blindly (``fuzz_importer``): what guides is the importer's own code, not GDAL's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["updater"]):
    from tests.faults.fuzz_importer import judged, originals

from tests.faults.fuzz_events import mutated

PLACE = Path(tempfile.mkdtemp(prefix="millesimed-fuzz-")) / "map.geojson"


def one(data: bytes) -> None:
    """Import bytes as a map file: a coverage, or a sentence."""
    PLACE.write_bytes(data)
    judged(PLACE)


if __name__ == "__main__":
    corpus = Path(sys.argv[1])
    (corpus / "map").write_bytes(originals(PLACE.parent)["geojson"]["map.geojson"])
    atheris.Setup(sys.argv, one, custom_mutator=mutated)
    atheris.Fuzz()
