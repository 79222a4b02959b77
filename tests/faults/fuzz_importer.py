"""Map files gone wrong: bytes of every format scrambled, GeoJSON documents changed.

``python -m tests.faults.fuzz_importer FOLDER COUNT SEED`` prints how many were tried and accepted;
what is neither a map nor a sentence ends it with a traceback.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

import geopandas as gpd
import shapely

from tests.faults.inputs import changed, is_sentence, scrambled
from tests.test_importer import GOOD, delivered
from updater.errors import ImportFailed
from updater.importer import prepare

FORMATS = ("gpkg", "shp", "fgb", "geojson", "parquet")
DEADLINE_SECONDS = 20.0


def originals(folder: Path) -> dict[str, dict[str, bytes]]:
    """A good map in every format, file by file."""
    found = {}
    for suffix in FORMATS:
        place = folder / "good" / suffix
        place.mkdir(parents=True, exist_ok=True)
        if suffix == "parquet":
            geojson = folder / "good" / "geojson" / "map.geojson"
            gpd.read_file(geojson).to_parquet(place / "map.parquet")
        else:
            delivered(place / f"map.{suffix}", GOOD)
        found[suffix] = {path.name: path.read_bytes() for path in place.iterdir()}
    return found


def wrong(files: dict[str, bytes], suffix: str, chance: random.Random) -> dict[str, bytes]:
    """The files of a map with one of them changed; a GeoJSON mostly in its structure."""
    name = chance.choice(sorted(files))
    if suffix == "geojson" and chance.random() < 0.8:
        body = json.dumps(changed(json.loads(files[name]), chance)).encode()
    elif chance.random() < 0.2:
        body = files[name][: chance.randrange(len(files[name]))]
    else:
        body = scrambled(files[name], chance)
    return files | {name: body}


def judged(path: Path) -> bool:
    """True where a map came out of it, which then is a coverage."""
    try:
        polygons, report = prepare(path, millesime=2021)
    except ImportFailed as error:
        assert is_sentence(str(error)), str(error)
        return False
    assert polygons and report.valid
    assert shapely.coverage_is_valid([p.geometry for p in polygons])
    return True


def main() -> None:
    """Try so many."""
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    good, chance, accepted = originals(folder), random.Random(seed), 0
    for number in range(count):
        suffix = FORMATS[number % len(FORMATS)]
        place = folder / "wrong"
        place.mkdir(exist_ok=True)
        for old in place.iterdir():
            old.unlink()
        for name, body in wrong(good[suffix], suffix, chance).items():
            (place / name).write_bytes(body)
        began = time.perf_counter()
        try:
            accepted += judged(place / f"map.{suffix}")
        except BaseException:
            sys.stderr.write(f"input {number} of seed {seed}, kept in {place}\n")
            raise
        assert time.perf_counter() - began < DEADLINE_SECONDS, f"input {number} of seed {seed}"
    sys.stdout.write(f"{count} tried, {accepted} accepted\n")


if __name__ == "__main__":
    main()
