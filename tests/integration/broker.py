"""A real broker process for tests."""

from daemon.bench_broker import available, broker, free_port

__all__ = ["available", "broker", "free_port"]
