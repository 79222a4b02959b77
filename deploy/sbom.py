"""The software bill of materials (CycloneDX) of what ``requirements.lock`` installs.

``python -m deploy.sbom`` writes ``deploy/sbom.json``. The lock is made by hand, when a dependency
changes (``docs/operations.md``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
LOCK: Final = HERE / "requirements.lock"
PROJECT: Final = HERE.parent / "pyproject.toml"
SBOM: Final = HERE / "sbom.json"
SPEC: Final = "1.6"


def document() -> str:
    """The bill as JSON text, the same for the same lock."""
    made = subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "requirements", str(LOCK)),
            *("--pyproject", str(PROJECT), "--mc-type", "application"),
            *("--output-reproducible", "--output-format", "JSON", "--spec-version", SPEC),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.dumps(_plain(json.loads(made.stdout)), indent=1, sort_keys=True) + "\n"


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Without addresses to fetch from: where wheels come from is each site's own choice."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k != "externalReferences"}
    return [_plain(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    SBOM.write_text(document(), encoding="utf-8")
