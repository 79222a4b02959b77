"""The container's recipe and the systemd unit, as their own linters see them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import __version__
from daemon.config import load
from daemon.service import ALIVE_SECONDS
from tests.deployed import DEPLOY, dockerfile, instruction, unit

SYSTEMD = DEPLOY / "systemd"
MOST_EXPOSED = 15
"""What `systemd-analyze security` may say, tenths; the network and the GPU are 1.2 of it."""
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed"
)


def run(*command):
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def stages():
    """Lines of each stage of the Dockerfile, by its name."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", dockerfile(), flags=re.MULTILINE)[1:]
    return {name: (base, text) for base, name, text in zip(*[iter(parts)] * 3, strict=True)}


def test_hadolint_has_nothing_to_say():
    assert run("hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile") == (0, "")


def test_hadolint_would_say_something(tmp_path):
    text = dockerfile().replace("WORKDIR /data", "WORKDIR data")
    (tmp_path / "Dockerfile").write_text(text)
    assert run("hadolint", tmp_path / "Dockerfile")[0] != 0


def test_both_images_are_not_root_and_bring_nothing_to_build_with():
    found = stages()
    base, runtime = found["runtime"]
    assert base == "python:${PYTHON}"
    assert re.search(r"^ARG PYTHON=3\.\d+-slim-\w+$", dockerfile(), re.MULTILINE)
    assert "pip uninstall --yes" in runtime
    users = re.findall(r"^USER (.*)$", dockerfile(), re.MULTILINE)
    assert users == ["10001:10001"] and "USER 10001" in runtime and "useradd --uid 10001" in runtime
    for name in ("cpu", "cuda"):
        base, text = found[name]
        assert base == "runtime"
        assert f"COPY --from=build-{name} /opt/millesimed" in text
        assert "RUN" not in text
    assert list(found)[-1] == "cpu"  # what a build without --target makes


def test_labels_and_ports_are_those_of_the_project():
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', dockerfile()))
    assert labels["licenses"] == "Apache-2.0" and labels["title"] == "millesimed"
    assert re.search(rf"^ARG VERSION={re.escape(__version__)}$", dockerfile(), re.MULTILINE)
    port = load(DEPLOY / "millesimed.toml").http.port
    assert re.findall(r"^EXPOSE (\d+)$", dockerfile(), re.MULTILINE) == [str(port)]
    assert f":{port}/healthz" in " ".join(instruction("  CMD"))


def test_what_is_copied_is_there():
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile(), re.MULTILINE):
        for source in sources.split():
            assert source.endswith("[k]") or (DEPLOY.parent / source).exists(), source


@pytest.fixture
def installed(tmp_path):
    """The unit with a program that is there: this environment's."""
    text = (SYSTEMD / "millesimed.service").read_text()
    program = Path(sys.executable).with_name("millesimed")
    path = tmp_path / "millesimed.service"
    path.write_text(text.replace("/opt/millesimed/bin/millesimed --", f"{program} --"))
    return path


@needs_systemd
def test_systemd_understands_every_line_of_the_unit(installed):
    assert run("systemd-analyze", "verify", "--man=no", installed) == (0, "")


@needs_systemd
def test_systemd_would_say_what_it_does_not_understand(installed):
    installed.write_text(installed.read_text().replace("ProtectHome=yes", "ProtectHouse=yes"))
    assert "ProtectHouse" in run("systemd-analyze", "verify", "--man=no", installed)[1]


@needs_systemd
def test_the_sandbox_of_the_unit_is_tight(installed):
    call = ["systemd-analyze", "security", "--no-pager", "--offline=true"]
    code, text = run(*call, f"--threshold={MOST_EXPOSED}", installed)
    assert code == 0, text
    installed.write_text(installed.read_text().replace("PrivateUsers=yes", "PrivateUsers=no"))
    assert run(*call, f"--threshold={MOST_EXPOSED}", installed)[0] != 0


@needs_systemd
def test_systemd_makes_the_user_the_unit_runs_as():
    code, text = run("systemd-sysusers", "--dry-run", SYSTEMD / "sysusers.conf")
    assert code == 0, text
    named = re.findall(r"^u (\S+)", (SYSTEMD / "sysusers.conf").read_text(), re.MULTILINE)
    assert named == unit()["User"] == unit()["Group"]


def test_the_unit_writes_only_where_it_may():
    settings = load(SYSTEMD / "millesimed.toml")
    (state,) = unit()["StateDirectory"]
    home = f"/var/lib/{state}"
    assert unit()["WorkingDirectory"] == [home]
    for path in (*settings.db, settings.outbox_folder(), settings.inbox_folder()):
        assert str(path).startswith(f"{home}/")


def test_the_unit_is_restarted_when_healthz_would_say_so():
    assert int(unit()["WatchdogSec"][0]) == ALIVE_SECONDS


@pytest.mark.skipif(not os.environ.get("CI"), reason="asked where everything has to be there")
@pytest.mark.parametrize("tool", ["hadolint", "systemd-analyze", "promtool", "unshare", "kubectl"])
def test_nothing_is_left_out_where_everything_has_to_be_there(tool):
    assert shutil.which(tool)
