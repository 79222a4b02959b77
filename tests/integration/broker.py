"""A real broker process for tests."""

from daemon.bench.broker import Broker, available, brittle_broker, broker, free_port

__all__ = ["Broker", "available", "brittle_broker", "broker", "free_port"]
