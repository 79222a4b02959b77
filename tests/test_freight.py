"""What travels in files between the roles comes out as it went in, or says that it is damaged."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import MultiPolygon, Polygon, box

from daemon.freight import (
    DamagedFreight,
    context_bytes,
    context_from,
    judged_bytes,
    judged_from,
    located_from,
)
from daemon.judging import Context, Judged
from daemon.locate import Located
from detectors.types import Ground, Region
from schemas.acquisition import AcquisitionItem
from schemas.policy import Sensor
from tests.test_envelope import item
from updater.reads import ImageRecord
from updater.types import MapPolygon

numbers = st.floats(-1e7, 1e7)
shares = st.floats(0, 1)
names = st.text(max_size=12)
codes = st.none() | st.sampled_from(["CS1.1.1.1", "CS2.2.1", "CS2.1.1.3"])
moments = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@st.composite
def squares(draw):
    x, y, side = draw(numbers), draw(numbers), draw(st.floats(0.01, 5_000))
    return box(x, y, x + side, y + side / 3)


shapes = squares() | st.lists(squares(), min_size=1, max_size=3).map(MultiPolygon)
polygons = st.builds(
    MapPolygon,
    id=names,
    code_cs=codes,
    code_us=codes,
    millesime=st.integers(1990, 2100),
    geometry=squares(),
    version=st.integers(0, 2**62),
    source=names,
    ossature=st.booleans(),
    id_origine=names,
    code_or=names,
    valid_from=st.none() | moments,
)
paths = st.sampled_from([Path("/ortho/été 2021.tif"), Path("/mns.tif")])
records = st.builds(
    ImageRecord,
    item=names,
    path=paths,
    sensor=st.sampled_from(list(Sensor)),
    acquired=moments,
    gsd=st.floats(0.05, 60),
    footprint=shapes,
    elevation=st.none() | paths,
)
contexts = st.builds(
    Context,
    item=st.just(AcquisitionItem.model_validate(item())),
    located=st.builds(
        Located,
        image=paths,
        footprint=shapes,
        references=st.lists(records, max_size=2),
        elevation=st.none() | paths,
    ),
    map_crs=st.sampled_from(["EPSG:2154", "EPSG:2972"]),
    polygons=st.lists(polygons, max_size=4),
    outlines=st.dictionaries(names, shapes, max_size=3),
)
judgements = st.builds(
    Judged,
    regions=st.lists(
        st.builds(
            Region,
            geometry=shapes,
            from_cs=codes,
            to_cs=codes,
            probability=shares,
            magnitude=shares,
            looks=st.integers(1, 99),
        ),
        max_size=4,
    ),
    detector=names,
    flagged=shares,
    pixels_per_second=st.floats(0, 1e12),
    residual=st.none() | shares,
    grounds=st.dictionaries(names, st.builds(Ground, valid=shares, changed=shares), max_size=3),
)


@settings(deadline=None, max_examples=60)
@given(contexts)
def test_a_context_comes_out_as_it_went_in(context):
    body = context_bytes(context)
    assert context_from(body) == context and located_from(body) == context.located


@settings(deadline=None, max_examples=60)
@given(judgements)
def test_a_judgement_comes_out_as_it_went_in(judged):
    assert judged_from(judged_bytes(judged)) == judged


@settings(deadline=None, max_examples=60)
@given(judgements, st.data())
def test_what_is_cut_short_or_altered_is_refused_or_read_but_never_breaks_the_reader(judged, data):
    body = bytearray(judged_bytes(judged))
    end = data.draw(st.integers(0, len(body)))
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    for spoilt in (bytes(body), bytes(body[:end])):
        try:
            judged_from(spoilt)
        except DamagedFreight as error:
            assert "same version in every role" in str(error)


def test_one_kind_of_file_is_not_taken_for_the_other():
    judged = judged_bytes(Judged(regions=[], detector="cva/1", flagged=0.0, pixels_per_second=1.0))
    for read in (context_from, located_from):
        with pytest.raises(DamagedFreight):
            read(judged)
    polygon = MapPolygon("P", None, None, 2021, Polygon([(0, 0), (1, 0), (1, 1)]))
    located = Located(Path("/a.tif"), box(0, 0, 1, 1), [])
    context = Context(AcquisitionItem.model_validate(item()), located, "EPSG:2154", [polygon], {})
    with pytest.raises(DamagedFreight):
        judged_from(context_bytes(context))
