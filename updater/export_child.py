"""The process an export is written in: ``python -m updater.export_child FOLDER``.

GDAL and Shapely hold Python's lock for long, which beside a service would stall its answers. The
plan and the parts come on standard input; what goes to standard output is one JSON object a line:
``{"done": …}`` while it goes on, and at the end the file or one sentence.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

from schemas.errors import MillesimedError
from updater.export_rows import received
from updater.export_write import write_export

KINDER: Final = 10
"""Added to the niceness: detection and answers go first."""
CHUNK: Final = 1 << 20


def main(folder: Path) -> int:
    """Write what comes in; 0 where the file is whole."""
    os.nice(KINDER)
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        _say(done=done)

    try:
        plan, given = received(sys.stdin.buffer)
        path, rows = write_export(plan, given, folder, tell)
    except MillesimedError as error:
        _say(error=str(error), reason=error.reason)
        return 1
    _say(file=path.name, rows=rows, bytes=path.stat().st_size, sha256=_digest(path))
    return 0


def _say(**what: Any) -> None:  # noqa: ANN401 - JSON
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
