"""What a Kafka client complains of: counted every time, said once, and said when it is over.

A client that cannot reach its broker complains at every attempt to connect, several times a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException

from schemas.errors import UsageError

log = structlog.get_logger()

REMIND_SECONDS: Final = 300.0
"""A complaint that lasts is said again after this long: often enough to be found in a day's log."""
QUIET: Final[dict[str, str | int | float | bool]] = {"log_level": 2}
"""The client's own log repeats every complaint on stderr; only what is critical passes."""

_LOGIN: Final = "check `sasl.username`, `sasl.password` and `sasl.mechanism` in `kafka.options`"
_RIGHTS: Final = "give this login the right to it"
_ABSENT: Final = "see whether the broker runs; the service tries again by itself"
_ADVICE: Final[dict[int, str]] = {
    KafkaError._AUTHENTICATION: _LOGIN,
    KafkaError.SASL_AUTHENTICATION_FAILED: _LOGIN,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: _LOGIN,
    KafkaError._SSL: "check `security.protocol` and the `ssl.*` settings in `kafka.options`",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError.GROUP_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: _RIGHTS,
    KafkaError._TRANSPORT: _ABSENT,
    KafkaError._RESOLVE: "check the names in `kafka.servers`",
    KafkaError._ALL_BROKERS_DOWN: _ABSENT,
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create the topic, or correct its name; the service waits",
    KafkaError._UNKNOWN_TOPIC: "create the topic, or correct its name; the service waits",
}


class Complaints:
    """The errors of one client (``consumer`` or ``producer``). ``count`` is told of every one, by
    client and name."""

    def __init__(self, client: str, count: Callable[[str, str], None] | None = None) -> None:
        self._client = client
        self._count = count
        self._said: dict[str, float] = {}

    def __call__(self, error: KafkaError) -> None:
        """Take note of an error; the form librdkafka's ``error_cb`` has."""
        name = error.name()
        if self._count is not None:
            self._count(self._client, name)
        now = time.monotonic()
        last = self._said.get(name)
        if last is not None and now - last < REMIND_SECONDS:
            return
        self._said[name] = now
        log.warning(
            "kafka_error",
            client=self._client,
            code=name,
            error=words_of(error),
            advice=_ADVICE.get(error.code()),
        )

    def over(self) -> None:
        """The broker answered as it should."""
        if self._said:
            log.info("kafka_answers_again", client=self._client, after=sorted(self._said))
            self._said.clear()


def words_of(error: KafkaError) -> str:
    """What an error says, without a word of the broker's where it judged a login: it may repeat
    what it was sent."""
    return "login refused" if _ADVICE.get(error.code()) is _LOGIN else error.str()


def made(client: Callable[[dict[str, Any]], Any], options: dict[str, Any]) -> Any:  # noqa: ANN401
    """A client with its options.

    Raises:
        UsageError: an option that librdkafka does not know or take.
    """
    try:
        return client(options)
    except KafkaException as error:
        text = error.args[0].str() if error.args else str(error)
        raise UsageError(
            f"Kafka's settings cannot be used ({text}); correct `kafka.options`."
        ) from None
