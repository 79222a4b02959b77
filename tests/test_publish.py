"""Publishing a map: the real client against a platform on loopback that keeps real state."""

import json
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pytest
import structlog

from daemon.config import load
from daemon.logs import configure
from daemon.publish.token import PublishError
from daemon.publish.underway import alone
from schemas.errors import UsageError
from tests.entrepot import (
    COPY,
    ENDPOINT,
    EXTRA,
    INTEGRATION,
    PYRAMID,
    TOKEN,
    Fault,
    advance,
    configuration,
    files_of,
)
from tests.map_store import building, patched
from tests.publishing import Publish, assert_holds, assert_published, state
from tests.secrets import leaks
from updater.deliveries import TABLE
from updater.store import Store

pytest_plugins = ("tests.publishing",)
ROOT = Path(__file__).parent.parent
UPLOADS = "POST uploads/[^/]+/data"


def assert_made_once(there):
    """Two deliveries (structure and data), one of everything else; no delivery twice."""
    names = [u["name"] for u in there.every("uploads")]
    assert len(names) == len(set(names)) == 2
    assert len(there.every("processings/executions")) == 2
    for kind in ("stored_data", "configurations", "offerings"):
        there.only(kind)


def test_a_map_goes_all_the_way_and_the_second_time_nothing_happens(there, publish, db, tmp_path):
    done = publish.done()
    assert done["changed"] and done["sent"] > 100_000 and done["map"] == "D032"
    assert done["urls"] == ["https://x.example/ocsge_D032"]
    assert_published(there, done, state(db))
    assert_made_once(there)
    assert there.tables[done["stored"]][TABLE].key == "id"
    assert len(there.tables[done["stored"]]["zone_construite"].frame) == 1
    assert all(u["status"] == "CLOSED" for u in there.every("uploads"))
    checks = {c["check"]["_id"] for c in there.every("checks/executions")}
    assert checks == {"check-standard", "check-vector"}
    relation = there.only("configurations")["type_infos"]["used_data"][0]["relations"][0]
    assert relation["native_name"] == TABLE and relation["title"] == "OCS GE 2024, D032"
    assert [p.name for p in (tmp_path / "deliveries").iterdir()] == [".D032.lock"]
    there.calls.clear()
    again = publish.done()
    assert again == {**done, "sent": 0, "changed": False}
    assert not there.writes()


def test_what_is_stored_is_what_was_exported_byte_for_byte(there, publish, db, monkeypatch):
    monkeypatch.setattr("daemon.publish.stored.Storing.tidy", lambda _: None)
    done = publish.done()
    stored = files_of(there.home(done["stored"]))
    sent = [p for p in files_of(db.parent / "deliveries").values() if p.suffix in {".sql", ".gpkg"}]
    assert {name: path.read_bytes() for name, path in stored.items()} == {
        path.name: path.read_bytes() for path in sent
    }
    assert set(stored) == {f"{TABLE}.gpkg", f"{TABLE}-init.sql"}


def test_troubles_that_pass_are_borne(there, publish, db):
    there.faults += [
        Fault("POST uploads", status=500),
        Fault("POST uploads", drop=True),
        Fault(UPLOADS, status=429, after="0"),
        Fault(UPLOADS, cut=40_000),
        Fault(UPLOADS, drop=True),
        Fault("POST uploads/[^/]+/md5", status=503),
        Fault("POST uploads/[^/]+/close", drop=True),
        Fault("POST processings/executions", drop=True),
        Fault("POST processings/executions/[^/]+/launch", drop=True),
        Fault("GET uploads/[^/]+", status=502),
        Fault("POST configurations", drop=True),
        Fault("PUT configurations/.*", drop=True),
        Fault("POST configurations/[^/]+/offerings", drop=True),
        Fault("POST .*/tags", status=500),
    ]
    assert_published(there, publish.done(), state(db))
    assert_made_once(there)
    assert not there.faults


def test_a_platform_that_is_away_is_left_for_later(there, publish):
    there.faults.append(Fault("GET uploads", status=503, times=100))
    assert "status 503; run this again later" in publish.failed()
    there.faults[:] = [Fault("GET uploads", status=429, after="4000")]
    assert "status 429; run this again later" in publish.failed()


def test_wherever_it_stops_the_next_run_goes_on_and_makes_nothing_twice(
    there, publish, db, monkeypatch
):
    """After every single change at the platform the answer is lost, and the run with it. (PUTs are
    let through: a run that does not know of one repeats it.)"""
    monkeypatch.setattr("daemon.publish.http.TRIES", 1)
    runs, frame = 0, state(db)
    while True:
        runs += 1
        there.faults[:] = [Fault("(POST|DELETE) .*", drop=True)]
        result = publish.run("--json")
        if result.exit_code == 0:
            break
        assert isinstance(result.exception, PublishError), result.exception
        assert runs < 60
    assert_published(there, json.loads(result.stdout), frame)
    assert_made_once(there)
    assert runs > 15


def test_a_file_half_there_is_sent_again_and_the_others_are_not(there, publish, monkeypatch, db):
    monkeypatch.setattr("daemon.publish.http.TRIES", 1)
    there.faults.append(Fault(UPLOADS, cut=40_000))
    publish.failed()  # in the structure's only file
    there.faults.append(Fault(r"POST uploads/[^/]+/md5", status=500, times=1))
    publish.failed()
    there.calls.clear()
    assert_published(there, publish.done(), state(db))
    sent = [call for call in there.calls if call.endswith("/data") and call.startswith("POST")]
    assert len(sent) == 1  # of the second delivery


def test_damage_on_the_way_is_explained_and_sent_again_on_request(there, publish, db):
    there.corrupt = 1
    text = publish.failed()
    assert "UNSTABLE" in text and "Vérification standard" in text
    assert "La signature de ocsge/occupation_sol-init.sql diffère" in text
    assert "--resume" in text and "delete it" in text
    there.calls.clear()
    assert "UNSTABLE" in publish.failed() and not there.writes()
    there.corrupt = 1
    assert "UNSTABLE" in publish.failed("--resume")  # damaged once more: tried once, not for ever
    assert_published(there, publish.done("--resume"), state(db))
    assert_made_once(there)


@pytest.mark.parametrize("ends", [["FAILURE"], ["ABORTED"], ["SUCCESS", "FAILURE"]])
def test_a_processing_that_failed_is_explained_and_done_again_on_request(there, publish, db, ends):
    there.processing_ends = list(ends)
    text = publish.failed()
    assert f"ended as {ends[-1]} (Traitement lancé / ERREUR: plus de place sur le cluster)" in text
    there.calls.clear()
    assert ends[-1] in publish.failed() and not there.writes()
    assert_published(there, publish.done("--resume"), state(db))
    there.only("stored_data")


def test_an_offering_that_failed_is_explained_and_made_to_follow(there, publish, db):
    there.offering_ends = ["UNSTABLE", "UNSTABLE"]
    assert "The offering of ocsge_D032 is UNSTABLE" in publish.failed()
    assert "UNSTABLE" in publish.failed("--resume")
    assert_published(there, publish.done("--resume"), state(db))
    assert_made_once(there)


def test_a_new_state_gets_stored_data_of_its_own_and_the_layer_follows(there, publish, db):
    first = publish.done()
    with Store.open(db) as store:
        patched(store, 2, [building(250, 480)], days=20)
    second = publish.done()
    assert second["stored"] != first["stored"] and second["offering"] == first["offering"]
    assert_published(there, second, state(db))
    assert len(there.every("stored_data")) == 2


def test_changes_go_onto_what_is_published(there, publish, db):
    first = publish.done()
    whole = first["sent"]
    for number in (2, 3):
        with Store.open(db) as store:
            patched(store, number, [building(150 * number, 480, 60, 50)], days=20 * number)
        done = publish.done("--incremental")
        assert done["stored"] == first["stored"] and 0 < done["sent"] < whole
        assert_published(there, done, state(db))
    asked = [e["parameters"] for e in there.every("processings/executions")[2:]]
    assert len(asked) == 2 and all(one["delete"] and "update" in one for one in asked)
    there.calls.clear()
    assert not publish.done("--incremental")["changed"] and not there.writes()
    assert not publish.done()["changed"]  # it is there whole, however it came


def test_changes_that_failed_keep_nobody_from_publishing_the_map_whole(there, publish, db):
    publish.done()
    with Store.open(db) as store:
        patched(store, 2, [building(300, 480, 60, 50)], days=40)
    there.processing_ends = ["FAILURE"]
    publish.failed("--incremental")
    there.processing_ends = []
    with Store.open(db) as store:
        patched(store, 3, [building(450, 480, 60, 50)], days=60)
    assert "publish the map whole" in publish.failed("--incremental")
    assert_published(there, publish.done(), state(db))


def test_changes_from_an_older_year(there, publish, db):
    first = publish.done(millesime=2021)
    assert_published(there, first, state(db, 2021))
    done = publish.done("--incremental", "--since", "2021")
    assert done["stored"] == first["stored"]
    assert_published(there, done, state(db))
    assert there.only("configurations")["type_infos"]["used_data"][0]["relations"][0][
        "title"
    ].startswith("OCS GE 2024")


def test_changes_onto_something_else_are_refused(there, publish, db):
    assert "publish it whole first" in publish.failed("--incremental")
    publish.done()
    text = publish.failed("--incremental", "--since", "2021", millesime=2023)
    assert "No stored data holds D032 of 2021" in text and "there is 2024 as known at" in text


def test_changes_whose_run_was_killed_are_counted_before_new_ones_come(
    there, publish, db, monkeypatch
):
    first = publish.done()
    with Store.open(db) as store:
        patched(store, 2, [building(250, 480)], days=20)
    monkeypatch.setattr("daemon.publish.http.TRIES", 1)
    there.faults.append(Fault("POST processings/executions/.*/launch", drop=True))
    publish.failed("--incremental")  # launched, and nobody noted it
    with Store.open(db) as store:
        patched(store, 3, [building(480, 120)], days=40)
    assert "run this again when it is" in publish.failed("--incremental")
    for _ in range(4):  # the platform goes on meanwhile
        for kind in ("processings/executions", "stored_data"):
            for one in there.every(kind):
                advance(there, kind, one)
    done = publish.done("--incremental")
    assert done["stored"] == first["stored"]
    assert_published(there, done, state(db))


def test_a_table_without_a_key_takes_no_changes(there, tmp_path, db):
    top = f'processing = "{INTEGRATION}"\nkeyed = false\nchecks = ["{EXTRA}"]'
    publish = Publish(configuration(there, tmp_path, top=top), db)
    done = publish.done()
    assert_holds(there, done["stored"], state(db))
    assert len(there.every("uploads")) == 1
    assert EXTRA in {c["check"]["_id"] for c in there.every("checks/executions")}
    result = publish.run("--incremental")
    assert isinstance(result.exception, UsageError) and "keyed" in str(result.exception)


def test_a_download_is_the_product_with_its_metadata(there, tmp_path, db):
    service = f'type = "DOWNLOAD"\nendpoint = "{ENDPOINT}"\nused_data = {{ zone = "D032" }}'
    top = f'processing = "{COPY}"'
    done = Publish(configuration(there, tmp_path, service=service, top=top), db).done()
    files = files_of(there.home(done["stored"]))
    assert {Path(name).suffix for name in files} == {".gpkg", ".xml"}
    product = next(path for name, path in files.items() if name.endswith(".gpkg"))
    assert product.name.startswith("OCS-GE_2-0__GPKG_LAMB93_D032_2024")
    assert len(gpd.read_file(product, layer="OCCUPATION_SOL")) == done["polygons"]
    used = there.only("configurations")["type_infos"]["used_data"][0]
    assert used["zone"] == "D032" and used["format"] == "GPKG"


def test_tiles_are_made_of_the_tables_and_published(there, tmp_path, db):
    service = f'type = "WMTS-TMS"\nendpoint = "{ENDPOINT}"\nused_data = {{ top_level = "10" }}'
    pyramid = f'processing = "{PYRAMID}"\nparameters = {{ top_level = "10" }}'
    publish = Publish(configuration(there, tmp_path, service=service, pyramid=pyramid), db)
    done = publish.done()
    tables, tiles = there.every("stored_data")
    assert (tables["type"], tiles["type"]) == ("VECTOR-DB", "ROK4-PYRAMID-VECTOR")
    assert done["stored"] == tiles["_id"]
    assert there.only("offerings")["shows"]["used_data"][0]["stored_data"] == tiles["_id"]
    assert not publish.done()["changed"]
    with Store.open(db) as store:
        patched(store, 2, [building(250, 480)], days=20)
    again = publish.done("--incremental")
    assert_holds(there, tables["_id"], state(db))
    fed = there.every("processings/executions")[-1]
    assert fed["inputs"]["stored_data"][0]["_id"] == tables["_id"]
    assert there.only("offerings")["shows"]["used_data"][0]["stored_data"] == again["stored"]


def test_a_token_is_had_renewed_and_never_told(there, tmp_path, db, monkeypatch, capfd):
    monkeypatch.delenv("MILLESIMED_PUBLICATION_TOKEN")
    publish = Publish(configuration(there, tmp_path), db)
    assert "MILLESIMED_PUBLICATION_TOKEN" in publish.failed()
    monkeypatch.setenv("MILLESIMED_PUBLICATION_CLIENT_ID", "millesimed")
    monkeypatch.setenv("MILLESIMED_PUBLICATION_CLIENT_SECRET", "wrong-Zq7-1")
    configure(as_json=False, level="debug")
    assert "refuses the credentials" in publish.failed()
    monkeypatch.setenv("MILLESIMED_PUBLICATION_CLIENT_SECRET", "right")
    there.tokens.clear()
    there.faults += [
        Fault(UPLOADS, run=there.tokens.clear),
        Fault("POST .*/launch", run=there.tokens.clear),
    ]
    assert_published(there, publish.done(), state(db))
    assert [login["grant_type"] for login in there.logins] == ["client_credentials"] * 4
    monkeypatch.setenv("MILLESIMED_PUBLICATION_TOKEN", "token-Zq7-5xYw")
    refused = publish.failed()  # the platform repeats the token in its refusal
    assert "status 401 (you said Bearer …); check the token" in refused
    said = publish.said + "".join(capfd.readouterr())
    secrets = {"secret": "wrong-Zq7-1", "token": "token-Zq7-5xYw", "had": TOKEN}
    assert not leaks(said, secrets) and "publish_step" in said
    structlog.reset_defaults()


def test_a_token_in_a_file_is_read_at_each_call(there, tmp_path, db, monkeypatch):
    monkeypatch.delenv("MILLESIMED_PUBLICATION_TOKEN")
    top = f'processing = "{INTEGRATION}"\ntoken_file = "token"'
    publish = Publish(configuration(there, tmp_path, top=top), db)
    assert "publication.token_file" in publish.failed()
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert publish.done()["changed"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('datastore = "x"\nprocessing = "y"\ntoken = "Zq7hidden"', "MILLESIMED_PUBLICATION_TOKEN"),
        ('datastore = "x"\nprocessing = "y"\nurl = "https://u:Zq7hidden@h.example"', "url"),
        ('datastore = "x"\nprocessing = "y"\nclient_secret = ["Zq7hidden"]', "CLIENT_SECRET"),
        ('datastore = "x/../y"\nprocessing = "y"', "datastore"),
        ('datastore = "x"\nprocessing = "y"\n[publication.pyramid]\nprocessing = "z"', "WMTS-TMS"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_without_their_secret(tmp_path, text, words):
    service = f'\n[publication.service]\nendpoint = "{ENDPOINT}"\n'
    (tmp_path / "m.toml").write_text(f"[publication]\n{text}{service}")
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "m.toml")
    assert words in str(caught.value) and "Zq7hidden" not in str(caught.value)


def test_addresses_that_are_not_public_are_not_called(there, tmp_path, db):
    publish = Publish(configuration(there, tmp_path), db)
    text = publish.config.read_text().replace('networks = ["127.0.0.0/8"]\n', "")
    publish.config.write_text(text)
    assert "publication.networks" in publish.failed() and not there.calls


def test_what_the_platform_refuses_is_passed_on_in_its_words(there, tmp_path, db):
    top = 'processing = "another"'
    text = Publish(configuration(there, tmp_path, top=top), db).failed()
    assert "status 404 (no such processing); check the ids in [publication]" in text


def test_a_status_that_lasts_too_long_is_left_for_later(there, publish, monkeypatch):
    text = publish.config.read_text().replace("poll_seconds", "patience_hours = 1e-6\npoll_seconds")
    publish.config.write_text(text)
    there.faults.append(Fault("GET uploads/[^/]+/checks", run=lambda: None, times=1))
    monkeypatch.setattr("tests.entrepot.work._advance_checks", lambda *_: None)
    assert "run this again to go on, nothing is lost" in publish.failed()


def test_two_at_once_do_not_meet(there, publish, tmp_path):
    with alone(tmp_path / "deliveries", "D032"):
        assert "Another process is publishing D032" in publish.failed()
    assert publish.done()["changed"]


def test_a_command_that_cannot_know_where_to_says_so(tmp_path, db):
    (tmp_path / "m.toml").write_text("")
    publish = Publish(tmp_path / "m.toml", db)
    for more, words in (((), "docs/publication.md"), (("--since", "2021"), "--incremental")):
        result = publish.run(*more)
        assert isinstance(result.exception, UsageError) and words in str(result.exception)


KILLS = {
    "in a file": Fault(UPLOADS, cut=60_000),
    "after the files": Fault("POST uploads/[^/]+/close"),
    "while it is checked": Fault("GET uploads/[^/]+/checks"),
    "before the launch": Fault("POST processings/executions/[^/]+/launch"),
    "in the processing": Fault("GET processings/executions/.*", times=1),
    "before the offering": Fault("POST configurations/[^/]+/offerings"),
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "names",
    [
        ["in a file", "before the launch"],
        pytest.param(list(KILLS), marks=pytest.mark.faults),
    ],
    ids=["twice", "everywhere"],
)
def test_the_process_is_killed_again_and_again_and_the_map_arrives(there, publish, db, names):
    """SIGKILL of the real command in the middle of calls, in turn; each run goes on."""
    frame, killed = state(db), []
    for name in names:
        fault = KILLS[name]
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", *publish.words()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )

        def kill(name=name, process=process):
            process.kill()
            killed.append(name)

        there.faults[:] = [Fault(fault.calls, cut=fault.cut, run=kill)]
        _, said = process.communicate(timeout=60)
        assert process.returncode == -9, (name, said.decode()[-2000:])
    there.faults.clear()
    assert killed == names
    assert_published(there, publish.done(), frame)
    assert_made_once(there)
