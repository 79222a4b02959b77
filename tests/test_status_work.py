"""What `millesimed status` says of exports and publications: those under way, and why others
failed, without disturbing them."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from daemon.cli import app
from daemon.config import PublicationSettings, Settings
from daemon.jobs.records import Job, JobState, Shelf
from daemon.publish.token import PublishError
from daemon.publish.underway import alone, publications
from tests.exported import wanted

HOLD = """
import sys, time
from pathlib import Path
from daemon.publish.underway import alone
with alone(Path(sys.argv[1]), "D033", millesime=2021) as note:
    note("delivery CHECKING")
    print("held", flush=True)
    time.sleep(60)
"""


def job(number, state, **more):
    return Job(
        id=f"{number:032x}",
        request=wanted("map", "gpkg"),
        departement="D032",
        key="k",
        state=state,
        created=datetime.now(UTC) + timedelta(seconds=number),
        **more,
    )


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "millesimed.toml"
    path.write_text(f'db = ["{tmp_path}/D032.duckdb"]\n[http]\nport = 1\n')
    return path


@pytest.fixture
def settings(tmp_path):
    return Settings(db=[tmp_path / "D032.duckdb"])


def shown(config, *more):
    words = ["status", "--config", str(config), *more]
    return CliRunner().invoke(app, words, env={"COLUMNS": "120"}).stdout


def test_exports_that_wait_run_or_failed_are_listed_with_why(tmp_path, config):
    shelf = Shelf(tmp_path / "exports")
    shelf.folder.mkdir()
    assert json.loads(shown(config, "--json"))["exports"] == []
    shelf.save(job(1, JobState.FAILED, error="The disk is full."))
    shelf.save(job(2, JobState.DONE))
    shelf.save(job(3, JobState.RUNNING, started=datetime.now(UTC)))
    shelf.save(job(4, JobState.QUEUED))
    half = shelf.staging(job(3, JobState.RUNNING))
    found = json.loads(shown(config, "--json"))
    assert [row["state"] for row in found["exports"]] == ["running", "queued", "failed"]
    assert found["exports"][2]["error"] == "The disk is full."
    assert found["exports"][0]["product"] == "map" and found["exports"][0]["years"] == "2024"
    assert found["export_jobs"] == {"failed": 1, "done": 1, "running": 1, "queued": 1}
    assert half.is_dir()  # what is being written is left alone
    text = shown(config)
    assert "Exports waited for or failed" in text and "The disk is full." in text


def test_a_publication_is_seen_while_it_goes_on_and_when_it_was_killed(tmp_path, config, settings):
    folder = tmp_path / "deliveries"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        for _ in range(3):
            (row,) = publications(settings)
            assert row["state"] == "under-way" and row["map"] == "D033"
            assert row["millesime"] == 2021 and row["step"] == "delivery CHECKING"
        with pytest.raises(PublishError, match="Another process"), alone(folder, "D033"):
            pass
        (row,) = publications(settings)
        assert row["step"] == "delivery CHECKING"  # whoever was refused wrote nothing
        assert json.loads(shown(config, "--json"))["publications"] == [row]
        assert "delivery CHECKING" in shown(config)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert publications(settings)[0]["state"] == "interrupted"
    with alone(folder, "D033"):
        assert publications(settings)[0]["state"] == "under-way"
    assert publications(settings) == []


def test_one_that_failed_says_why_until_it_went_well(tmp_path, settings):
    folder = tmp_path / "deliveries"
    with pytest.raises(PublishError), alone(folder, "D032", millesime=2024) as note:
        note("processing PROGRESS")
        raise PublishError("The processing failed; look at its log.")
    (row,) = publications(settings)
    assert (row["state"], row["error"]) == ("failed", "The processing failed; look at its log.")
    assert row["step"] == "processing PROGRESS"
    with alone(folder, "D032"):
        pass
    assert publications(settings) == []


def test_the_folder_set_is_the_one_that_is_looked_at(tmp_path, settings):
    own = PublicationSettings(
        datastore="d", processing="p", service={"endpoint": "e"}, folder=tmp_path / "own"
    )
    with alone(tmp_path / "own", "D032"):
        assert publications(settings) == []
        (row,) = publications(settings.model_copy(update={"publication": own}))
        assert row["map"] == "D032"
    with alone(tmp_path / "backups" / "deliveries", "D032"):
        kept = settings.model_copy(update={"backup_folder": tmp_path / "backups"})
        assert [r["map"] for r in publications(kept)] == ["D032"]
