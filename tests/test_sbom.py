"""What is locked is what the project asks for, and the bill of materials says the same."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy.sbom import LOCK, SBOM, document

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
SHIPPED = ("gpu", "sentinel2")
"""Extras that the lock holds too; a deployment may leave them out."""


def locked():
    """Name, version and number of hashes of every pin."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", LOCK.read_text())
    found = [(PIN.match(block), len(HASH.findall(block))) for block in blocks]
    return {canonicalize_name(m[1]): (Version(m[2]), hashes) for m, hashes in found if m}


def asked():
    extras = [line for name in SHIPPED for line in PROJECT["optional-dependencies"][name]]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]


@pytest.mark.parametrize("wanted", asked(), ids=str)
def test_every_direct_dependency_is_locked_to_a_version_it_allows(wanted):
    version, _ = locked()[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version, prereleases=True)


def test_every_pin_has_hashes_and_no_file_says_where_to_fetch_from():
    assert all(hashes for _, hashes in locked().values())
    for path in (LOCK, SBOM):
        assert not re.search(r"index-url|find-links|trusted-host|file://", path.read_text())
        assert not re.search(r"https?://(?!cyclonedx\.org/schema/)", path.read_text())


def test_the_bill_lists_what_is_locked_with_its_hashes():
    bill = json.loads(SBOM.read_text())
    listed = {canonicalize_name(c["name"]): Version(c["version"]) for c in bill["components"]}
    assert listed == {name: version for name, (version, _) in locked().items()}
    counts = {canonicalize_name(c["name"]): len(c["hashes"]) for c in bill["components"]}
    assert counts == {name: hashes for name, (_, hashes) in locked().items()}
    assert bill["metadata"]["component"]["name"] == PROJECT["name"]
    assert bill["metadata"]["component"]["version"] == PROJECT["version"]


def test_the_bill_is_what_its_script_makes_and_valid_cyclonedx():
    text = SBOM.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.loads(text) == json.loads(document())
