"""Events: what is accepted, what is refused, and that a refusal is one sentence."""

import json
from datetime import UTC, datetime

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.envelope import (
    ACQUISITION_TYPE,
    cloud_event,
    parse_acquisition,
    to_kafka,
    to_structured,
)
from schemas.errors import EventTooLarge, InvalidEvent, NotJson
from schemas.geojson import MultiPolygon
from schemas.policy import MAX_EVENT_BYTES, MAX_FOOTPRINT_VERTICES, Sensor


def item(**changes):
    document = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": "pva-1",
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[0.5, 43.5], [0.6, 43.5], [0.6, 43.6], [0.5, 43.6], [0.5, 43.5]]],
        },
        "bbox": [0.5, 43.5, 0.6, 43.6],
        "properties": {
            "datetime": "2024-06-18T12:00:00Z",
            "proj:code": "EPSG:2154",
            "gsd": 0.2,
            "millesimed:sensor": "pva",
            "millesimed:departement": "D032",
        },
        "assets": {"image": {"href": "file:///data/a.tif"}},
        "links": [],
    }
    return document | changes


def event(data=None):
    return cloud_event(
        type_=ACQUISITION_TYPE,
        id_="e1",
        source="urn:test",
        data=data or item(),
        time=datetime(2024, 7, 1, tzinfo=UTC),
        key="D032",
    )


def test_both_modes_carry_the_same_acquisition():
    structured = parse_acquisition(to_structured(event()), {})
    message: KafkaMessage = to_kafka(event())
    binary = parse_acquisition(message.value, dict(message.headers))
    assert structured == binary
    assert structured.key == "urn:test#e1"
    assert structured.item.properties.sensor is Sensor.PVA
    assert message.headers["ce_type"] == ACQUISITION_TYPE.encode()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (item(assets={"thumb": {"href": "x"}}), "image"),
        (item(geometry={"type": "Point", "coordinates": [0, 0]}), "geometry"),
        (item(stac_version="0.9.0"), "stac_version"),
        (item(properties={"datetime": "2024-06-18T12:00:00Z", "gsd": 0.2}), "sensor"),
        (
            item(properties=item()["properties"] | {"datetime": "2024-06-18T12:00:00"}),
            "datetime",
        ),
        (item(properties=item()["properties"] | {"gsd": -1}), "gsd"),
        (
            item(properties=item()["properties"] | {"datetime": "9999-12-31T23:59:59-23:59"}),
            "year must be",
        ),
        (item(properties=item()["properties"] | {"millesimed:departement": "32"}), "departement"),
    ],
)
def test_a_bad_item_is_refused_naming_the_field(data, word):
    with pytest.raises(InvalidEvent, match=word) as caught:
        parse_acquisition(to_structured(event(data)), {})
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_not_json_wrong_type_and_too_large_are_told_apart():
    with pytest.raises(NotJson):
        parse_acquisition(b"\x00\xff" * 100, {})
    other = json.loads(to_structured(event())) | {"type": "something.else"}
    with pytest.raises(InvalidEvent, match="type"):
        parse_acquisition(json.dumps(other).encode(), {})
    with pytest.raises(EventTooLarge):
        parse_acquisition(b"0" * (MAX_EVENT_BYTES + 1), {})
    with pytest.raises(InvalidEvent, match="empty"):
        parse_acquisition(None, {})


@pytest.mark.parametrize("odd", ["NaN", "Infinity", '"\\ud800"', '"a" "b"'])
def test_what_only_python_takes_for_json_is_not_json(odd):
    value = to_structured(event()).replace(b'"D032"', odd.encode())
    with pytest.raises(NotJson):
        parse_acquisition(value, {})


@pytest.mark.parametrize("bad", ["a\nb", "a\0b", "x" * 2000])
def test_an_id_is_short_and_plain(bad):
    document = json.loads(to_structured(event())) | {"id": bad}
    with pytest.raises(InvalidEvent, match="short, plain"):
        parse_acquisition(json.dumps(document).encode(), {})


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [[]],
        [[], [[[0, 43], [1, 43], [1, 44], [0, 43]]]],
        [[[[0, 43], [1, 43], [1, 44], [0, 44]]]],
        [[[[0, 43], [1, 43], [0, 43]]]],
    ],
)
def test_a_part_without_rings_and_a_ring_that_is_open_are_refused(parts):
    with pytest.raises(ValidationError):
        MultiPolygon(coordinates=parts)


@pytest.mark.parametrize("instant", [0, 1718704800, 1718704800.5, "1718704800", " 0.0", "1e9"])
def test_seconds_since_1970_are_no_instant(instant):
    document = json.loads(to_structured(event()))
    document["data"]["properties"]["datetime"] = instant
    with pytest.raises(InvalidEvent):
        parse_acquisition(json.dumps(document).encode(), {})


def test_a_footprint_of_more_vertices_than_any_scene_is_refused():
    ring = [[0.5 + n * 1e-6, 43.5] for n in range(MAX_FOOTPRINT_VERTICES)] + [[0.5, 43.5]]
    data = item(geometry={"type": "Polygon", "coordinates": [ring]})
    with pytest.raises(InvalidEvent, match="vertices"):
        parse_acquisition(to_structured(event(data)), {})


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.dictionaries(st.text(max_size=12), st.binary(max_size=20)))
def test_any_bytes_are_an_event_or_a_sentence(value, headers):
    with pytest.raises(InvalidEvent) as caught:
        parse_acquisition(value, headers)
    assert str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(list(item())), json_values, max_size=4))
def test_any_change_of_an_item_is_an_event_or_a_sentence(changes):
    envelope = json.loads(to_structured(event()))
    envelope["data"] |= changes
    try:
        parsed = parse_acquisition(json.dumps(envelope).encode(), {})
    except InvalidEvent as error:
        assert str(error).endswith(".")
    else:
        assert parsed.item.id
