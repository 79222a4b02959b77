"""The platform's API Entrepôt on loopback: real state, real files, statuses that move as they do
there, and every fault a client may meet.

Statuses advance when they are asked for. Checks compute the MD5 of what lies here; the processing
reads the files and keeps tables, applying deletes, updates and inserts in that order.
"""

from tests.entrepot.state import (
    COPY,
    ENDPOINT,
    EXTRA,
    INTEGRATION,
    PYRAMID,
    TOKEN,
    Fault,
    Platform,
    Table,
    files_of,
)
from tests.entrepot.tables import apply
from tests.entrepot.wire import configuration, platform
from tests.entrepot.work import advance

__all__ = [
    "COPY",
    "ENDPOINT",
    "EXTRA",
    "INTEGRATION",
    "PYRAMID",
    "TOKEN",
    "Fault",
    "Platform",
    "Table",
    "advance",
    "apply",
    "configuration",
    "files_of",
    "platform",
]
