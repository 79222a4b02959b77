"""Starts service processes quickly: it has everything imported and forks.

``python -m tests.faults.warm`` reads one JSON object a line and answers with one: ``{"run":
[arguments], "environment": {}, "log": file}`` starts ``millesimed`` with these arguments in a
process of its own and gives its ``pid``; ``{"wait": pid, "seconds": n}`` gives how it ended, as
``subprocess`` would, or null where it still runs.
"""

from __future__ import annotations

import json
import os
import sys
import time

import torch

import daemon.chips
import daemon.demo
import daemon.detection
import daemon.kafka_channel
import daemon.map_picture
import daemon.roles
import daemon.service  # noqa: F401 - all of it imported, so that children need not
from daemon.cli import main as millesimed
from detectors import siamese

_ended: dict[int, int] = {}


def run(arguments: list[str], environment: dict[str, str], log: str) -> int:
    """A child that is the service; gives its process id."""
    child = os.fork()
    if child:
        _ended.pop(child, None)  # numbers come again
        return child
    os.setsid()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.environ.update(environment)
    sys.argv = ["millesimed", *arguments]
    code = 0
    try:
        millesimed()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - what the interpreter would do
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(child: int, seconds: float) -> int | None:
    """How a child ended, however often that is asked; None where it still runs."""
    if child in _ended:
        return _ended[child]
    until = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            _ended[child] = os.waitstatus_to_exitcode(status)
            return _ended[child]
        if time.monotonic() >= until:
            return None
        time.sleep(0.01)


def main() -> None:
    """Answer requests until the other side closes."""
    torch.set_num_threads(1)  # no threads may run where processes are forked
    siamese.load(None, "cpu")
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            answer = run(request["run"], request["environment"], request["log"])
        else:
            answer = wait(request["wait"], request["seconds"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
