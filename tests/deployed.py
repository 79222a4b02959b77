"""The commands of the deployment files, run as what starts them would: in a read-only root."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

DEPLOY = Path(__file__).parent.parent / "deploy"
READY_SECONDS = 60.0
BESIDE = "/mnt"
"""A folder every machine has; the sandbox lays its own over it."""
_INSIDE = f"""
mount -t tmpfs tmpfs {BESIDE}
mkdir {BESIDE}/data {BESIDE}/tmp
mount --bind "$1" {BESIDE}/data
mount -o remount,bind,ro /
shift
cd {BESIDE}/data
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


def sandboxed(command: list[str], data: Path) -> list[str]:
    """The command in a mount namespace of its own: the root read-only, no capabilities, ``data``
    the only folder that stays."""
    return ["unshare", "--mount", "sh", "-ec", _INSIDE, "sh", str(data), *command]


def can_sandbox(data: Path) -> bool:
    """True where this machine lets a process have mounts of its own."""
    done = subprocess.run(
        sandboxed(["touch", f"{BESIDE}/data/here"], data), capture_output=True, check=False
    )
    return done.returncode == 0 and (data / "here").exists()


def instruction(name: str) -> list[str]:
    """What a Dockerfile's instruction in exec form holds; ``  CMD`` is the health check's."""
    (found,) = re.findall(rf"^{name} (\[.*\])$", dockerfile(), re.MULTILINE)
    return list(json.loads(found))


def dockerfile() -> str:
    """Its text."""
    return (DEPLOY / "Dockerfile").read_text()


def unit() -> dict[str, list[str]]:
    """Every setting of the systemd unit, with its values in order."""
    text = (DEPLOY / "systemd" / "millesimed.service").read_text()
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def here(command: list[str]) -> list[str]:
    """The command with this environment's program, and the configuration in the data folder."""
    program = str(Path(sys.executable).with_name("millesimed"))
    config = f"{BESIDE}/data/millesimed.toml"
    own = [program if Path(part).name == "millesimed" else part for part in command]
    return [config if part.endswith("/millesimed.toml") else part for part in own]


def filtered(command: list[str]) -> list[str]:
    """The command under the unit's filter of system calls."""
    names: list[str] = []
    for line in unit()["SystemCallFilter"]:  # a line is allowed or denied as a whole
        sign = "~" if line.startswith("~") else ""
        names += [sign + name for name in line.removeprefix("~").split()]
    script = str(Path(__file__).with_name("seccomp.py"))
    return [sys.executable, script, *names, "--", *command]


class Started:
    """A process and the service in it."""

    def __init__(
        self,
        command: list[str],
        data: Path,
        port: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = data / "stderr.log"
        given = dict(os.environ) | {"TMPDIR": f"{BESIDE}/tmp", "HOME": f"{BESIDE}/data"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                sandboxed(command, data), env=given | dict(environment or {}), stderr=log
            )

    def answer(self, path: str) -> int:
        """Status of a GET; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def wait_ready(self) -> None:
        """Until /readyz says 200."""
        until = time.monotonic() + READY_SECONDS
        while self.answer("/readyz") != 200:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < until, self.log.read_text()[-2000:]
            time.sleep(0.1)

    def stop(self, name: str = "SIGTERM") -> tuple[int, float]:
        """Send a signal; gives the exit code and the seconds that took."""
        asked = time.monotonic()
        self.process.send_signal(getattr(signal, name))
        return self.process.wait(timeout=60), time.monotonic() - asked

    def lines(self) -> list[dict[str, object]]:
        """Its log, every line of it one JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        """Whatever happened before."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
