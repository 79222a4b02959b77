"""Batches of corrections through the real service: inbox or API in, map, history and lists out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import duckdb
import geopandas as gpd
import pytest
import shapely
from pydantic import ValidationError
from shapely.geometry import box, mapping
from typer.testing import CliRunner

from daemon.cli import app
from daemon.config import HttpSettings, Scope, Settings, TokenSettings
from daemon.metrics import Metrics
from daemon.outcomes import Outcome
from daemon.pipeline import Pipeline
from daemon.service import Service
from daemon.submit import Batch, Intake, event_of, restoring, submissions
from daemon.tokens import digest
from schemas.alert import AlertState, FalseAlarm, Verdict
from schemas.change import ChangeKind
from schemas.correction import Submission
from schemas.envelope import CHANGE_TYPE, CorrectionEvent, parse_event, to_kafka, to_structured
from schemas.errors import InvalidEvent
from schemas.policy import MAX_CORRECTION_FEATURES, MAX_CORRECTION_VERTICES
from schemas.territory import TerritoryKind
from tests.map_store import FIRST, building, content, made_store, patched
from tests.served import api
from updater.alert_rows import record_from_row, record_to_row
from updater.corrections import Wanted, corrected_in, corrections
from updater.crs import WGS84, reproject
from updater.diff import differential
from updater.lineage import events
from updater.migrations import MIGRATIONS
from updater.reads import alerts_now, as_of, end_of, map_now
from updater.revert import revert
from updater.review import accept_alert, alert_history, false_alarms, reject_alert
from updater.store import Store
from updater.territories import add_territories
from updater.verify import verify

SEEN = datetime(2023, 5, 2, 12, tzinfo=UTC)
POND = box(100, 100, 180, 160)
EVERYWHERE = (-1e6, -1e6, 1e7, 1e7)


def feature(shape, code_cs="CS1.2.2", code_us="US6.3", **more):
    """A GeoJSON feature of some Lambert-93 ground."""
    world = mapping(reproject(shape, "EPSG:2154", WGS84))
    properties = {"code_cs": code_cs, "code_us": code_us, **more}
    return {"type": "Feature", "geometry": world, "properties": properties}


def submission(*features, **changes):
    values = {
        "type": "FeatureCollection",
        "features": list(features) or [feature(POND)],
        "observed": SEEN.isoformat(),
        "source": "OCS communale",
    }
    return Submission.model_validate(values | changes)


@pytest.fixture
def place(tmp_path):
    """A map far from anything at the origin of Lambert-93, and settings to serve it."""
    store, _ = made_store(tmp_path / "D032.duckdb", seed=9)
    store.close()
    return Settings(
        db=[tmp_path / "D032.duckdb"],
        inbox=tmp_path / "inbox",
        outbox=tmp_path / "outbox",
        http=HttpSettings(enabled=False),
        device="cpu",
    )


def served(settings):
    """What a run of the service until its inbox is empty made of it."""
    service = Service(settings, once=True)
    service.run()
    return {outcome: n for outcome, n in service.counts.items() if n}


def opened(settings):
    return Store.open(settings.db[0])


def at(store, x, y):
    (found,) = [p for p in map_now(store) if p.geometry.covers(shapely.Point(x, y))]
    return found


# the whole way


def test_a_batch_redraws_the_map_once_in_its_authors_name_and_stands(place):
    sent = event_of(submission(feature(POND, comment="pond")), "auch")
    Intake.of(place).deliver(sent)
    assert served(place) == {Outcome.PROCESSED: 1}
    with opened(place) as store:
        pond = at(store, 140, 130)
        assert (pond.code_cs, pond.code_us) == ("CS1.2.2", "US6.3")
        assert pond.source == "correction OCS communale (auch)"
        assert pond.geometry.symmetric_difference(POND).area < 10
        (row,) = corrections(store)
        assert (row.author, row.source, row.comment) == ("auch", "OCS communale", "pond")
        assert (row.outcome, row.observed, row.kind) == ("applied", SEEN, ChangeKind.CORRECTION)
        (event,) = events(store)
        assert (event.id, event.kind, event.sensor) == (sent.get_id(), "correction", "correction")
        assert event.detector == "OCS communale (auch)"
        found = differential(store, end_of(2021), end_of(2023))
        assert found.count(ChangeKind.CORRECTION) and not found.count(ChangeKind.EVOLUTION)
        assert verify(store, deep=True).valid
        before = content(map_now(store))
    (told,) = [json.loads(path.read_text()) for path in (place.outbox / "changes").glob("*.json")]
    assert told["type"] == CHANGE_TYPE and told["data"]["kind"] == "correction"

    Intake.of(place).deliver(sent)  # sent again, it is the same event
    again = event_of(submission(feature(POND, comment="pond")), "auch")
    assert again.get_id() == sent.get_id()
    assert served(place) == {Outcome.DUPLICATE: 1}
    with opened(place) as store:
        assert content(map_now(store)) == before and len(corrections(store)) == 1


def test_what_was_undone_holds_nothing(place):
    sent = event_of(submission(), "auch")
    Intake.of(place).deliver(sent)
    served(place)
    with opened(place) as store:
        (held,) = corrected_in(store, EVERYWHERE)
        assert (held.observed, held.code_cs) == (SEEN, "CS1.2.2")
        revert(store, str(sent.get_id()), reason="wrong batch")
        assert not corrected_in(store, EVERYWHERE) and len(corrections(store)) == 1
        assert verify(store, deep=True).valid


def test_what_is_no_batch_becomes_a_dead_letter_with_a_sentence(place):
    body = json.loads(to_structured(event_of(submission(), "auch")))
    body["data"]["features"][0]["properties"]["code_cs"] = "CS9"
    place.inbox.mkdir()
    (place.inbox / "1.json").write_text(json.dumps(body))
    Intake.of(place).deliver(event_of(submission(feature(box(9e5, 9e5, 9e5 + 90, 9e5 + 90))), "a"))
    Intake.of(place).deliver(event_of(submission(alert="AL" + 20 * "0"), "a"))
    assert served(place) == {Outcome.DEAD_LETTERED: 3}
    with opened(place) as store:
        rows = store.execute("SELECT reason, message FROM dead_letters ORDER BY 1").fetchall()
    assert [row[0] for row in rows] == ["alert-missing", "outside-the-map", "schema-invalid"]
    assert "features.0.properties.code_cs" in rows[2][1]
    assert len(list((place.inbox / "failed").iterdir())) == 3


def test_what_breaks_a_rule_of_the_map_is_left_out_and_said(place):
    small = feature(box(300, 300, 309, 309))
    Intake.of(place).deliver(event_of(submission(feature(POND), small), "auch"))
    served(place)
    with opened(place) as store:
        assert [row.outcome for row in corrections(store)] == ["applied", "below-minimum-unit"]
        assert len(corrections(store, Wanted(outcome="applied"))) == 1
        assert len(corrected_in(store, EVERYWHERE)) == 1


# answers to alerts


@pytest.fixture
def alarmed(place):
    """A map with a house an image saw, and what it was before."""
    with opened(place) as store:
        before = content(map_now(store))
        patched(store, 1, [building(220, 220)])
        (record,) = alerts_now(store)
    return place, record, before


def ground(settings):
    """Area by cover and usage: what the map says, however it is cut."""
    with opened(settings) as store:
        assert verify(store, deep=True).valid
        table: dict[tuple[str | None, str | None], float] = {}
        for p in map_now(store):
            key = p.code_cs, p.code_us
            table[key] = round(table.get(key, 0.0) + p.geometry.area, 1)
        return table


def test_the_ground_of_a_rejected_alert_goes_back_to_what_it_was(alarmed):
    settings, record, before = alarmed
    with opened(settings) as store:
        reject_alert(store, record.id, reason="shed", cause=FalseAlarm.SHADOW, by="auch")
    Intake.of(settings).deliver(event_of(restoring(record, "shed", "D032"), "auch"))
    assert served(settings) == {Outcome.PROCESSED: 1}
    found = ground(settings)
    wanted: dict[tuple[object, object], float] = {}
    for _, cs, us, _, _, _, wkb in before:
        wanted[cs, us] = wanted.get((cs, us), 0.0) + shapely.from_wkb(wkb).area
    for key in {*wanted, *found}:
        assert found.get(key, 0.0) == pytest.approx(wanted.get(key, 0.0), abs=3.0), key
    with opened(settings) as store:
        (row,) = alerts_now(store)
        assert row.state is AlertState.REJECTED and row.sequence == 2
        assert {r.alert for r in corrections(store)} == {record.id}
        # as known now the house never stood, not even on the day it was seen
        then = as_of(store, valid_at=FIRST + timedelta(days=1))
        house = [p for p in then if p.geometry.covers(shapely.Point(220, 220))]
        assert [p.code_cs for p in house] != ["CS1.1.1.1"]


def test_an_alert_drawn_anew_is_accepted_as_drawn_and_the_rest_goes_back(alarmed):
    settings, record, _ = alarmed
    smaller = box(205, 208, 225, 232)
    drawn = feature(smaller, "CS1.1.1.1", "US5")
    answer = submission(drawn, alert=record.id, observed=FIRST.isoformat())
    Intake.of(settings).deliver(event_of(answer, "auch"))
    served(settings)
    with opened(settings) as store:
        house = at(store, 215, 220)
        assert (house.code_cs, house.code_us) == ("CS1.1.1.1", "US5")
        assert house.geometry.area == pytest.approx(smaller.area, abs=5)
        assert at(store, 232, 220).code_cs != "CS1.1.1.1"
        (after,) = alerts_now(store)
        assert after.state is AlertState.CONFIRMED and after.after.code_us == "US5"
        assert (after.review.verdict, after.review.by) == (Verdict.ACCEPTED, "auch")
        assert after.geometry.area == pytest.approx(smaller.area, abs=5)
        assert verify(store, deep=True).valid


def test_an_alert_answered_with_nothing_drawn_is_rejected(alarmed):
    settings, record, _ = alarmed
    answer = submission(alert=record.id, observed=FIRST.isoformat(), features=[])
    Intake.of(settings).deliver(event_of(answer, "auch"))
    served(settings)
    with opened(settings) as store:
        (after,) = alerts_now(store)
        assert after.state is AlertState.REJECTED and after.review.by == "auch"
        assert at(store, 220, 220).code_cs != "CS1.1.1.1"


# decisions


def test_accepting_confirms_once_and_a_later_no_wins(alarmed):
    settings, record, _ = alarmed
    with opened(settings) as store:
        first = accept_alert(store, record.id, by="auch")
        assert first.state is AlertState.CONFIRMED and first.sequence == record.sequence + 1
        assert accept_alert(store, record.id, by="other") == first
        no = reject_alert(store, record.id, reason="tent", cause=FalseAlarm.TEMPORARY, by="auch")
        assert no.state is AlertState.REJECTED and no.review.cause is FalseAlarm.TEMPORARY
        assert reject_alert(store, record.id, reason="again") == no
        assert [r.sequence for r in alert_history(store, record.id)] == [1, 2, 3]
        patched(store, 2, [building(220, 220)], days=60)  # rejected stays rejected
        assert [r.state for r in alerts_now(store)] == [AlertState.REJECTED]


def test_a_cause_can_be_added_to_a_rejection_of_an_earlier_version(alarmed):
    settings, record, _ = alarmed
    with opened(settings) as store:
        reject_alert(store, record.id, reason="tent")
        later = reject_alert(store, record.id, reason="x", cause=FalseAlarm.TEMPORARY)
        assert (later.review.reason, later.review.cause) == ("tent", FalseAlarm.TEMPORARY)
        text, wkb = record_to_row(later)
        assert record_from_row(text, wkb) == later
        old = json.loads(text)
        for name in ("verdict", "by", "cause"):
            del old["review"][name]
        assert record_from_row(json.dumps(old), wkb).review.verdict is Verdict.REJECTED


def test_the_false_alarm_table_counts_by_kind_and_cause(place):
    with opened(place) as store:
        spots = [(80, 80), (220, 80), (360, 80), (500, 80)]
        patched(store, 1, [building(x, y) for x, y in spots])
        shadow, again, unsaid, right = [r.id for r in alerts_now(store)]
        reject_alert(store, shadow, reason="x", cause=FalseAlarm.SHADOW)
        reject_alert(store, again, reason="x", cause=FalseAlarm.SHADOW)
        reject_alert(store, unsaid, reason="x")
        accept_alert(store, right)
        rows = [(row.cause, row.count, row.share) for row in false_alarms(store)]
    assert rows == [(FalseAlarm.SHADOW, 2, 0.5), (None, 1, 0.25)]


# what is sent in


def test_a_file_becomes_a_batch_for_each_date_within_the_bounds(tmp_path):
    shapes = [box(x, 0, x + 20, 20) for x in range(0, 20 * (MAX_CORRECTION_FEATURES + 2), 20)]
    frame = gpd.GeoDataFrame(
        {"CODE_CS": "CS2.1.2", "code_us": "US6.6", "observed": ["2023-05-02"] * len(shapes)},
        geometry=shapes,
        crs=2154,
    )
    frame.loc[0, "observed"] = "2022-04-01"
    frame.to_file(tmp_path / "ocs.gpkg")
    made = submissions(tmp_path / "ocs.gpkg", Batch("OCS communale"))
    assert [len(m.features) for m in made] == [1, MAX_CORRECTION_FEATURES, 1]
    assert [m.observed.date().isoformat() for m in made] == ["2022-04-01"] + 2 * ["2023-05-02"]
    for one in made:
        event = event_of(one, "auch")
        read = parse_event(to_structured(event), {})
        assert isinstance(read, CorrectionEvent) and read.correction.author == "auch"
        record = to_kafka(event)
        assert parse_event(record.value, dict(record.headers)) == read


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"code_us": "US6.6", "observed": "2023-05-02"}, "no code_cs"),
        ({"code_cs": "CS2.1.2", "code_us": "US6.6"}, "no observed"),
        ({"code_cs": "CS2", "code_us": "US6.6", "observed": "2023-05-02"}, "code_cs"),
        ({"code_cs": "CS2.1.2", "code_us": "US6.6", "observed": "spring"}, "no date"),
    ],
)
def test_a_file_that_lacks_something_is_refused_with_a_sentence(tmp_path, columns, said):
    gpd.GeoDataFrame([columns], geometry=[POND], crs=2154).to_file(tmp_path / "ocs.gpkg")
    with pytest.raises(Exception, match=said):
        submissions(tmp_path / "ocs.gpkg", Batch("OCS communale"))


@pytest.mark.parametrize(
    "changes",
    [
        {"features": []},
        {"author": "somebody else"},
        {"source": "two\nlines"},
        {"observed": "2023-05-02T12:00:00"},
        {"kind": "evolution", "alert": "AL" + 20 * "0"},
        {"features": [feature(POND)] * (MAX_CORRECTION_FEATURES + 1)},
        {"features": [feature(POND.centroid.buffer(50, quad_segs=MAX_CORRECTION_VERTICES // 4))]},
    ],
)
def test_what_is_no_submission_is_refused(changes):
    with pytest.raises(ValidationError):
        submission(**changes)


def test_a_correction_that_says_another_type_is_no_correction():
    body = json.loads(to_structured(event_of(submission(), "auch")))
    body["type"] = "fr.millesimed.acquisition.v1"
    with pytest.raises(InvalidEvent):
        parse_event(json.dumps(body).encode(), {})


# from the command line


def said(*arguments):
    """What a command prints as JSON."""
    shown = CliRunner().invoke(app, [str(a) for a in arguments] + ["--json"])
    assert shown.exit_code == 0, (shown.output, shown.exception)
    return json.loads(shown.stdout)


def test_a_file_goes_in_by_command_and_is_listed(place, tmp_path):
    frame = gpd.GeoDataFrame(
        {"code_cs": "CS1.2.2", "code_us": "US6.3"}, geometry=[POND], crs=2154, index=[0]
    )
    frame.to_file(tmp_path / "ocs.shp")
    db, inbox = place.db[0], place.inbox
    more = ("--source", "cadastre", "--observed", "2023-05-02", "--by", "agent", "--inbox", inbox)
    (event,) = said("corrections", "submit", tmp_path / "ocs.shp", *more)["events"]
    assert event["polygons"] == 1 and (inbox / f"{event['id']}.json").is_file()
    served(place)
    (row,) = said("corrections", "list", "--db", db)
    assert (row["author"], row["source"], row["outcome"]) == ("agent", "cadastre", "applied")
    assert said("corrections", "list", "--outcome", "topology", "--db", db) == []
    (listed,) = said("events", "--db", db)
    assert listed["detector"] == "cadastre (agent)"
    with opened(place) as store:
        pond = at(store, 140, 130).id
    (link,) = {step["detector"] for step in said("lineage", pond, "--db", db)["ancestors"]}
    assert link == "cadastre (agent)"
    log = tmp_path / "log.parquet"
    said("changelog", "2021", "2023", "--db", db, "--out", log)
    changed = gpd.read_parquet(log).set_index("id")
    assert changed.loc[pond, "source"] == "correction cadastre (agent)"


def test_alerts_are_decided_by_command(alarmed):
    settings, record, _ = alarmed
    db = settings.db[0]
    assert said("alerts", "accept", record.id, "--by", "agent", "--db", db)["state"] == "confirmed"
    more = ("--reason", "tent", "--cause", "temporary", "--restore", "--inbox", settings.inbox)
    no = said("alerts", "reject", record.id, *more, "--by", "agent", "--db", db)
    assert no["state"] == "rejected" and no["restoring"].startswith(str(settings.inbox))
    assert served(settings) == {Outcome.PROCESSED: 1}
    with opened(settings) as store:
        assert at(store, 220, 220).code_cs != "CS1.1.1.1"
    (row,) = said("alerts", "causes", "--db", db)
    assert (row["cause"], row["count"], row["share"]) == ("temporary", 1, 1.0)


def test_a_store_of_an_earlier_version_takes_corrections(tmp_path, monkeypatch):
    with monkeypatch.context() as older:
        older.setattr("updater.store.MIGRATIONS", MIGRATIONS[:5])
        older.setattr("updater.store.SCHEMA_VERSION", 5)
        made, _ = made_store(tmp_path / "D032.duckdb", seed=9)
        patched(made, 1, [building(220, 220)])
        with pytest.raises(duckdb.CatalogException):
            corrections(made)
        made.close()
    settings = Settings(
        db=[tmp_path / "D032.duckdb"], inbox=tmp_path / "in", http=HttpSettings(enabled=False)
    )
    Intake.of(settings).deliver(event_of(submission(), "auch"))
    assert served(settings) == {Outcome.PROCESSED: 1}
    with opened(settings) as store:
        assert [row.outcome for row in corrections(store)] == ["applied"]


# over HTTP

TOWN, OFFICE, READER = "token-town", "token-office", "token-reader"


def tokens():
    def known(token, scope, *territories):
        return TokenSettings(sha256=digest(token), scopes=[scope], territories=list(territories))

    return {
        "town": known(TOWN, Scope.REVIEW, "32013"),
        "office": known(OFFICE, Scope.REVIEW),
        "reader": known(READER, Scope.READ),
    }


@pytest.fixture
def call(place, tmp_path):
    with opened(place) as store:
        frame = gpd.GeoDataFrame(
            {"code_insee": ["32013"], "nom": ["Auch"]}, geometry=[box(0, 0, 300, 600)], crs=2154
        )
        frame.to_file(tmp_path / "communes.gpkg")
        add_territories(store, tmp_path / "communes.gpkg", TerritoryKind.COMMUNE)
        with api([store], tokens(), intake=Intake.of(place)) as client:
            client.store, client.settings = store, place
            yield client


def sent(*features, **changes):
    return json.loads(submission(*features, **changes).model_dump_json(exclude_none=True))


def taken_in(call):
    """Let the pipeline have what lies in the inbox."""
    pipeline = Pipeline([call.store], call.settings, Metrics())
    from daemon.inbox_source import InboxSource

    source, found = InboxSource(call.settings.inbox), []
    while not source.drained():
        message = source.next(0.0)
        if message is not None:
            found.append(pipeline.handle(message))
            source.done(message, failed=False)
    return found


def test_what_is_answered_with_202_lies_in_the_inbox_and_has_its_effect(call):
    answer = call("POST", "/corrections", sent(), token=TOWN)
    assert answer.status == 202 and answer.json["polygons"] == 1
    (file,) = call.settings.inbox.glob("*.json")
    assert json.loads(file.read_text())["id"] == answer.json["id"]
    assert call("POST", "/corrections", sent(), token=TOWN).json == answer.json
    assert taken_in(call) == [Outcome.PROCESSED]
    listed = call("GET", "/corrections").json
    assert listed["total"] == 1
    (row,) = listed["corrections"]
    assert (row["author"], row["outcome"]) == ("town", "applied")
    assert row["event"].endswith(answer.json["id"])
    assert call("GET", "/corrections?author=other").json["total"] == 0


def test_who_may_not_send_corrections_cannot(call):
    assert call("POST", "/corrections", sent()).status == 401
    assert call("POST", "/corrections", sent(), token=READER).status == 403
    assert call("POST", "/corrections", {"features": []}, token=OFFICE).status == 422
    outside = sent(feature(POND), feature(box(310, 10, 380, 80)))
    refused = call("POST", "/corrections", outside, token=TOWN)
    assert refused.status == 403 and "1 of 2 polygons" in refused.json["detail"]
    assert call("POST", "/corrections", outside, token=OFFICE).status == 202
    assert call("POST", "/corrections", sent(alert="AL" + 20 * "0"), token=OFFICE).status == 422


def test_a_disk_that_takes_nothing_is_no_202(call):
    call.settings.inbox.write_text("a file where the folder should be")
    answer = call("POST", "/corrections", sent(), token=OFFICE)
    assert answer.status == 503 and answer.headers["Retry-After"]


def test_a_town_decides_on_alerts_of_its_own_ground_alone(call):
    patched(call.store, 1, [building(80, 80), building(500, 80)])
    mine, other = sorted(alerts_now(call.store), key=lambda r: r.geometry.centroid.x)
    assert call("POST", f"/alerts/{other.id}/accept", token=TOWN).status == 403
    assert call("POST", f"/alerts/{other.id}/reject", {"reason": "x"}, token=TOWN).status == 403
    yes = call("POST", f"/alerts/{mine.id}/accept", token=TOWN)
    assert yes.status == 200
    assert (yes.json["review"]["verdict"], yes.json["review"]["by"]) == ("accepted", "town")
    body = {"reason": "tent", "cause": "temporary", "restore": True}
    no = call("POST", f"/alerts/{mine.id}/reject", body, token=TOWN)
    assert no.status == 200 and no.json["review"]["cause"] == "temporary"
    assert taken_in(call) == [Outcome.PROCESSED]
    assert at(call.store, 80, 80).code_cs != "CS1.1.1.1"
    assert at(call.store, 500, 80).code_cs == "CS1.1.1.1"
    assert (
        call(
            "POST", f"/alerts/{mine.id}/reject", {"reason": "x", "cause": "moon"}, token=TOWN
        ).status
        == 422
    )
    assert call("POST", "/alerts/AL0/accept", token=OFFICE).status == 404
