"""Logs: structured, on stderr, never on stdout where ``--json`` speaks.

As JSON every line is one object: what libraries log, warnings and uncaught errors too.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import TracebackType
from typing import Final

import structlog

log = structlog.get_logger()

CALM: Final = ("apscheduler", "rasterio", "pyogrio")
"""Loggers of which only errors are news: a skipped round, a file that is about to be refused."""


class _Lines(logging.StreamHandler):  # type: ignore[type-arg]
    """What libraries log, to whatever stderr is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


def configure(*, as_json: bool, level: str = "INFO") -> None:
    """Set up structlog once, at the start of a command."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        # stderr is looked up at every line: whoever replaced it may have closed its own since
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    _of_libraries(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    for name in CALM:
        logging.getLogger(name).setLevel(logging.ERROR)
    if as_json:
        logging.captureWarnings(True)
        sys.excepthook = _crashed
        threading.excepthook = _thread_crashed


def as_json() -> bool:
    """True where logs are JSON lines, and so is whatever else goes to stderr."""
    last = structlog.get_config()["processors"][-1]
    return isinstance(last, structlog.processors.JSONRenderer)


def _of_libraries(formatter: logging.Formatter) -> None:
    """Their warnings and errors take the same form."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Lines)]:
        root.removeHandler(old)
    handler = _Lines()
    handler.setFormatter(formatter)
    root.addHandler(handler)


def _crashed(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
        return
    log.critical("crashed", exc_info=(kind, error, where))


def _thread_crashed(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        name = args.thread.name if args.thread else None
        log.critical("thread_crashed", thread=name, exc_info=args.exc_value)
