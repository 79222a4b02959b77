"""What is locked is what the project asks for, and the bill of materials says the same."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy.sbom import LOCK, document

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
SHIPPED = ("gpu", "s3", "sentinel2", "tracing")
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


@pytest.fixture(scope="module")
def bill():
    """The bill as its script makes it."""
    return document()


def test_every_pin_has_hashes_and_no_file_says_where_to_fetch_from(bill):
    assert all(hashes for _, hashes in locked().values())
    for text in (LOCK.read_text(), bill):
        assert not re.search(r"index-url|find-links|trusted-host|file://", text)
        assert not re.search(r"https?://(?!cyclonedx\.org/schema/)", text)


def test_no_pin_is_of_one_machine():
    assert not [str(version) for version, _ in locked().values() if version.local]


def test_the_bill_lists_what_is_locked_with_its_hashes(bill):
    components = json.loads(bill)["components"]
    listed = {canonicalize_name(c["name"]): Version(c["version"]) for c in components}
    assert listed == {name: version for name, (version, _) in locked().items()}
    counts = {canonicalize_name(c["name"]): len(c["hashes"]) for c in components}
    assert counts == {name: hashes for name, (_, hashes) in locked().items()}
    about = json.loads(bill)["metadata"]["component"]
    assert (about["name"], about["version"]) == (PROJECT["name"], PROJECT["version"])


def test_the_bill_is_valid_cyclonedx_and_the_same_again(bill):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill) is None
    assert document() == bill


def test_the_container_installs_what_is_locked_and_leaves_out_what_is_for_cuda_only():
    text = (LOCK.parent / "Dockerfile").read_text()
    assert text.count("--require-hashes --requirement requirements.lock") == 2
    program = re.search(r"awk '([^']+)'", text)[1]
    left = subprocess.run(["awk", program, LOCK], capture_output=True, text=True, check=True)
    names = {canonicalize_name(m[1]) for m in map(PIN.match, left.stdout.splitlines()) if m}
    gone = locked().keys() - names
    assert "torch" in gone
    assert all(re.match("torch$|triton|nvidia|cuda", name) for name in gone)
    assert not [name for name in names if re.match("torch$|triton|nvidia|cuda", name)]
    assert len(HASH.findall(left.stdout)) == sum(n for k, (_, n) in locked().items() if k in names)
