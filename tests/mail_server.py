"""A real mail server in a process of its own that keeps mail in a Maildir and fails when told."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from email import message_from_bytes
from email.policy import default
from pathlib import Path

from aiosmtpd.handlers import Mailbox

ROOT = Path(__file__).parent.parent
START_SECONDS = 20.0
HANG_SECONDS = 4.0


def free_port():
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Moody(Mailbox):
    """Runs in the server: answers as the file ``answer`` beside the Maildir says, as in ``rcpt 550
    no``, ``data 451 later``, ``data hang``, ``data cut`` (kept, but never said so) or ``quit cut``.
    """

    def _answer(self, command):
        told = Path(self.mail_dir).with_name("answer")
        words = told.read_text().split(" ", 1) if told.exists() else ["", ""]
        return words[1] if words[0] == command else None

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if (answer := self._answer("rcpt")) is not None:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        answer = self._answer("data")
        if answer == "hang":
            await asyncio.sleep(HANG_SECONDS)
        elif answer == "cut":
            await super().handle_DATA(server, session, envelope)
            server.transport.abort()
        elif answer is None:
            return await super().handle_DATA(server, session, envelope)
        return answer

    async def handle_QUIT(self, server, session, envelope):  # noqa: N802
        if self._answer("quit") is None:
            return "221 Bye"
        server.transport.abort()
        return "421 cut"


class MailServer:
    """The process, seen from the test."""

    def __init__(self, folder, *options):
        self.folder, self._options = folder, options
        self.box = folder / "box"
        self.port = free_port()
        self.start()

    def start(self):
        """Listen; returns once it does."""
        place = f"127.0.0.1:{self.port}"
        arguments = ["-n", "-l", place, *self._options, "-c", "tests.mail_server.Moody", self.box]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aiosmtpd", *map(str, arguments)],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self):
        """End the process; its mail stays."""
        self._process.terminate()
        self._process.wait(timeout=10)

    def answers(self, text=None):
        """What to say from now on; None takes mail."""
        told = self.folder / "answer"
        told.unlink(missing_ok=True)
        if text:
            told.write_text(text)

    def raw(self):
        """Every mail taken as bytes, oldest first."""
        return [p.read_bytes() for p in sorted((self.box / "new").glob("*"), key=_arrived)]

    def mails(self):
        """Every mail taken, oldest first."""
        return [message_from_bytes(body, policy=default) for body in self.raw()]


def _arrived(path):
    """Seconds and microseconds in a Maildir's file name."""
    return [int(n) for n in re.match(r"(\d+)\.M(\d+)", path.name).groups()]
