"""A dead letter goes back as the event it was; what never was one does not."""

import base64
import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from daemon.announce import event_bytes, item_of, when
from daemon.cli import app
from daemon.retry import back_to_inbox, retry
from schemas.dead_letter import DeadLetter, Origin
from schemas.envelope import parse_acquisition, to_kafka, to_structured
from schemas.errors import UsageError
from schemas.policy import Sensor
from updater import review
from updater.commit import commit_dead_letter


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


@pytest.fixture
def letters(store, event):
    """Three letters: two of images that were missing, one of bytes that never were an event."""
    made = [
        letter(event[1]).model_copy(update={"id": "DL1"}),
        letter(event[1]).model_copy(update={"id": "DL2"}),
        letter(b"poison").model_copy(update={"id": "DL3", "reason": "not-json"}),
    ]
    for one in made:
        assert commit_dead_letter(store, one)
    return made


def test_each_letter_gets_one_more_chance_and_one_that_cannot_go_holds_up_no_other(
    store, letters, tmp_path
):
    def send(one):
        return str(back_to_inbox(one, tmp_path))

    first = retry(store, [letters[2], *letters[:2]], send)
    assert [one.destination is not None for one in first] == [False, True, True]
    assert "JSON" in first[0].refused
    (tmp_path / "DL1.json").unlink()
    (again,) = retry(store, letters[:1], send)
    assert again.destination is None and "already" in again.refused
    assert not (tmp_path / "DL1.json").exists()
    assert set(review.retries(store)) == {"DL1", "DL2"}


def test_all_of_a_reason_go_back_from_the_command_line(store, letters, tmp_path):
    db, inbox = str(store.path), tmp_path / "in"
    store.close()

    def call(*words):
        done = CliRunner().invoke(app, ["dead-letters", *words, "--db", db, "--json"])
        return done.exit_code, json.loads(done.stdout) if done.exit_code == 0 else done.exception

    _, listed = call("list", "--reason", "asset-missing")
    assert {row["id"] for row in listed} == {"DL1", "DL2"}
    assert isinstance(call("retry")[1], UsageError)
    assert isinstance(call("retry", "DL1", "--all")[1], UsageError)
    _, done = call("retry", "--all", "--reason", "asset-missing", "--inbox", str(inbox))
    assert {one["id"] for one in done["letters"]} == {"DL1", "DL2"}
    assert len(list(inbox.glob("*.json"))) == 2
    assert call("retry", "--all", "--reason", "asset-missing", "--inbox", str(inbox))[1] == {
        "letters": []
    }
    assert isinstance(call("retry", "DL1", "--inbox", str(inbox))[1], UsageError)
    assert [row["id"] for row in call("list", "--waiting")[1]] == ["DL3"]
    shown = call("show", "DL2")[1]
    assert shown["retried"] and shown["destination"].endswith("DL2.json")
