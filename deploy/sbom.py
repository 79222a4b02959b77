"""The software bill of materials (CycloneDX) of what ``requirements.lock`` installs.

``python -m deploy.sbom > sbom.json`` makes it, the same for the same lock; it is not kept, for the
lock says all of it. The lock is made by hand, when a dependency changes (``docs/operations.md``).
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
SPEC: Final = "1.6"


def document() -> str:
    """The bill as JSON text, the same for the same lock."""
    made = subprocess.run(  # noqa: S603 - a program of the test extra
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


def _plain(bill: dict[str, Any]) -> dict[str, Any]:
    """Named by package instead of by line of the lock, with the hashes of each one's files but no
    address to fetch them from: where wheels come from is each site's own choice."""
    names = {c["bom-ref"]: f"{c['name']}=={c['version']}" for c in bill["components"]}
    components = []
    for component in bill["components"]:
        hashes = [h for link in component["externalReferences"] for h in link.get("hashes", [])]
        components.append(
            {
                "bom-ref": names[component["bom-ref"]],
                "hashes": sorted(hashes, key=lambda h: str(h["content"])),
                **{k: component[k] for k in ("name", "purl", "type", "version")},
            }
        )
    known = names.keys()
    links = [
        {
            "ref": names.get(link["ref"], link["ref"]),
            "dependsOn": sorted(names[ref] for ref in link.get("dependsOn", []) if ref in known),
        }
        for link in bill["dependencies"]
    ]
    metadata = {k: v for k, v in bill["metadata"].items() if k != "tools"}
    metadata["component"].pop("externalReferences", None)
    return {**bill, "components": components, "dependencies": links, "metadata": metadata}


if __name__ == "__main__":
    sys.stdout.write(document())
