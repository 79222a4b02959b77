"""A command under a system call filter: ``python tests/seccomp.py ALLOW… DENY… -- COMMAND``.

Names are those of ``SystemCallFilter=`` in a unit; what is denied begins with ``~``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys

ALLOWED = 0x7FFF0000
REFUSED = 0x00050000 | errno.EPERM
ALWAYS = ["@default", "execve"]
"""What systemd lets through in any case."""


def groups() -> dict[str, list[str]]:
    """The sets of system calls systemd knows by name."""
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what it could not learn of the kernel
        text=True,
        check=True,
    )
    found: dict[str, list[str]] = {}
    name = ""
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            name = line.strip()
        elif line.startswith("    ") and not line.lstrip().startswith("#"):
            found.setdefault(name, []).append(line.strip())
    return found


def calls(names: list[str], known: dict[str, list[str]]) -> set[str]:
    """The system calls that names and sets stand for."""
    found: set[str] = set()
    for name in names:
        found |= calls(known[name], known) if name.startswith("@") else {name}
    return found


def confine(allowed: set[str]) -> None:
    """Refuse this process every other system call, for good."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(REFUSED)))
    for name in sorted(allowed):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != -1:  # of another architecture
            library.seccomp_rule_add(context, ctypes.c_uint32(ALLOWED), number, 0)
    if library.seccomp_load(context) != 0:
        raise SystemExit("the filter was not loaded")


def main() -> None:
    """Confine, then become the command."""
    place = sys.argv.index("--")
    names, command = sys.argv[1:place], sys.argv[place + 1 :]
    known = groups()
    denied = [name.removeprefix("~") for name in names if name.startswith("~")]
    allowed = [name for name in names if not name.startswith("~")]
    confine((calls(allowed, known) - calls(denied, known)) | calls(ALWAYS, known))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
