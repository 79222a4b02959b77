"""Logs: structured, on stderr, never on stdout where ``--json`` speaks."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, as_json: bool, level: str = "INFO") -> None:
    """Set up structlog once, at the start of a command."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        # stderr is looked up at every line: whoever replaced it may have closed its own since
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a skipped round is no news
    logging.getLogger("rasterio").setLevel(logging.ERROR)
    logging.getLogger("pyogrio").setLevel(logging.ERROR)
