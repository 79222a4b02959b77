"""Superseded stored data goes once the new one is shown: as many as are kept stay, and whatever an
offering shows, or may show; what a kill leaves goes the next time."""

import pytest

from tests.entrepot import ENDPOINT, INTEGRATION, PYRAMID, Fault, configuration
from tests.map_store import building, patched
from tests.publishing import Publish, assert_holds, assert_published, state
from updater.store import Store

pytest_plugins = ("tests.publishing",)
NONE = f'processing = "{INTEGRATION}"\nkeep_superseded = 0'


def built(db, number):
    with Store.open(db) as store:
        patched(store, number, [building(60 + 90 * number, 480, 50, 50)], days=20 * number)


def names(there):
    return [one["name"] for one in there.every("stored_data")]


def test_the_one_before_is_kept_and_older_ones_go(there, publish, db):
    first = publish.done()
    built(db, 2)
    second = publish.done()
    assert not first["pruned"] and not second["pruned"] and len(names(there)) == 2
    built(db, 3)
    third = publish.done()
    (gone,) = third["pruned"]
    assert names(there) == [name_of(there, done) for done in (second, third)]
    assert gone.startswith("ocsge_D032_2024_") and gone not in names(there)
    assert_published(there, third, state(db))
    there.calls.clear()
    again = publish.done()
    assert not again["changed"] and not again["pruned"] and not there.writes()


def name_of(there, done):
    return there.of("stored_data", done["stored"])["name"]


def test_with_none_to_keep_what_was_removed_can_be_published_again(there, tmp_path, db):
    publish = Publish(configuration(there, tmp_path, top=NONE), db)
    publish.done()
    older = publish.done(millesime=2021)
    assert len(older["pruned"]) == 1 and names(there) == [name_of(there, older)]
    again = publish.done()
    assert_published(there, again, state(db))
    assert len(again["pruned"]) == 1 and len(names(there)) == 1


def test_what_another_layer_shows_stays(there, tmp_path, db):
    service = f'type = "WFS"\nendpoint = "{ENDPOINT}"\nlayer_name = "ocsge_{{millesime}}"'
    publish = Publish(configuration(there, tmp_path, top=NONE, service=service), db)
    old = publish.done(millesime=2021)
    publish.done()
    built(db, 2)
    new = publish.done()
    assert len(new["pruned"]) == 1
    assert {one["_id"] for one in there.every("stored_data")} == {old["stored"], new["stored"]}
    assert_holds(there, old["stored"], state(db, 2021))


def test_tables_go_with_the_tiles_made_of_them(there, tmp_path, db):
    service = f'type = "WMTS-TMS"\nendpoint = "{ENDPOINT}"'
    pyramid = f'processing = "{PYRAMID}"'
    config = configuration(there, tmp_path, top=NONE, service=service, pyramid=pyramid)
    publish = Publish(config, db)
    publish.done()
    built(db, 2)
    again = publish.done()
    assert len(again["pruned"]) == 2 and len(names(there)) == 2
    built(db, 3)
    on = publish.done("--incremental")
    assert len(on["pruned"]) == 1  # the tiles before; the tables were changed in place
    assert {one["type"] for one in there.every("stored_data")} == {
        "VECTOR-DB",
        "ROK4-PYRAMID-VECTOR",
    }


@pytest.mark.parametrize(
    "fault",
    [
        Fault("DELETE stored_data/.*", drop=True),
        Fault("DELETE stored_data/.*", status=500),
        Fault("GET configurations", status=500, times=1),
    ],
    ids=["answer lost", "not done", "before"],
)
def test_what_a_run_did_not_remove_the_next_one_does(there, tmp_path, db, monkeypatch, fault):
    config = configuration(there, tmp_path, top=NONE)
    publish = Publish(config, db)
    publish.done()
    built(db, 2)
    monkeypatch.setattr("daemon.publish.http.TRIES", 1)
    there.faults.append(Fault(fault.calls, status=fault.status, drop=fault.drop))
    shown = there.only("offerings")
    publish.failed()
    monkeypatch.setattr("daemon.publish.http.TRIES", 5)
    there.faults.clear()
    done = publish.done()
    assert names(there) == [name_of(there, done)]
    assert shown["status"] == "PUBLISHED" and shown["_id"] == done["offering"]
    assert_published(there, done, state(db))


def test_an_answer_that_is_lost_is_borne(there, tmp_path, db):
    publish = Publish(configuration(there, tmp_path, top=NONE), db)
    publish.done()
    built(db, 2)
    there.faults.append(Fault("DELETE stored_data/.*", drop=True))
    assert len(publish.done()["pruned"]) == 1 and len(names(there)) == 1


def test_what_the_platform_does_not_let_go_is_said(there, tmp_path, db):
    publish = Publish(configuration(there, tmp_path, top=NONE), db)
    publish.done()
    built(db, 2)
    there.faults.append(Fault("DELETE stored_data/.*", status=403))
    done = publish.done()
    assert len(done["unpruned"]) == 1 and not done["pruned"] and len(names(there)) == 2
    assert_published(there, done, state(db))
    assert len(publish.done()["pruned"]) == 1


def test_what_an_offering_may_still_show_stays(there, tmp_path, db):
    publish = Publish(configuration(there, tmp_path, top=NONE), db)
    first = publish.done()
    other = there.new(
        "offerings",
        "PUBLISHED",
        type="WFS",
        configuration=first["configuration"],
        endpoint={"_id": "another"},
        open=True,
        urls=[],
        shows=there.only("offerings")["shows"],
    )
    built(db, 2)
    assert not publish.done()["pruned"] and len(names(there)) == 2
    del there.things["offerings"][other["_id"]]
    assert len(publish.done()["pruned"]) == 1


def test_what_is_being_worked_on_stays(there, tmp_path, db):
    publish = Publish(configuration(there, tmp_path, top=NONE), db)
    first = publish.done()
    built(db, 2)
    work = there.every("processings/executions")[-1]
    work["status"] = "CREATED"  # asked for, and not launched
    assert not publish.done()["pruned"] and first["stored"] in there.things["stored_data"]
    work["status"] = "SUCCESS"
    assert len(publish.done()["pruned"]) == 1
