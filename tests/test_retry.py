"""A dead letter goes back as the event it was; what never was one does not."""

import base64
from datetime import UTC, datetime

import pytest

from daemon.announce import event_bytes, item_of, when
from daemon.retry import back_to_inbox
from schemas.dead_letter import DeadLetter, Origin
from schemas.envelope import parse_acquisition, to_kafka, to_structured
from schemas.errors import UsageError
from schemas.policy import Sensor


def letter(payload, headers=None, **more):
    return DeadLetter(
        id="DL1",
        event=None,
        origin=Origin(source="kafka", topic="t", offset=7),
        reason="asset-missing",
        message="m",
        attempts=1,
        received=datetime(2024, 7, 1, tzinfo=UTC),
        headers=headers or {},
        payload_base64=base64.b64encode(payload).decode(),
        **more,
    )


@pytest.fixture
def event(small_scene):
    item = item_of(small_scene.after, acquired=when("2024-06-18"), sensor=Sensor.PVA)
    return event_bytes(item)


def test_a_structured_event_goes_back_word_for_word(event, tmp_path):
    path = back_to_inbox(letter(event[1]), tmp_path)
    assert path.read_bytes() == event[1]


def test_a_binary_event_goes_back_as_the_same_event(event, tmp_path):
    from cloudevents.core.formats.json import JSONFormat

    record = to_kafka(JSONFormat().read(None, event[1]))
    headers = {name: value.decode() for name, value in record.headers.items()}
    path = back_to_inbox(letter(record.value, headers), tmp_path)
    again = parse_acquisition(path.read_bytes(), {})
    assert again.id == event[0] and to_structured


def test_a_cut_payload_cannot_go_back(event, tmp_path):
    with pytest.raises(UsageError, match="announce the image again"):
        back_to_inbox(letter(event[1][:90], truncated=True), tmp_path)
