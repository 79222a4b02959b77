"""The command line: exit codes, JSON, help with examples, and the way of a map by hand."""

import json
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from daemon.cli import app

RUNNER = CliRunner()


def commands(group: typer.Typer, prefix=()):
    for command in group.registered_commands:
        name = command.name or command.callback.__name__
        yield (*prefix, name), command.callback
    for sub in group.registered_groups:
        yield from commands(sub.typer_instance, (*prefix, sub.name))


@pytest.mark.parametrize(
    ("path", "callback"),
    [pytest.param(*found, id=" ".join(found[0])) for found in commands(app)],
)
def test_every_command_has_help_with_an_example(path, callback):
    shown = RUNNER.invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    assert f"millesimed {' '.join(path)}" in " ".join((callback.__doc__ or "").split())


def millesimed(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "daemon.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_map_goes_in_verifies_and_comes_out(tmp_path, small_scene):
    db = tmp_path / "D032.duckdb"
    common = ["--millesime", "2021", "--territory", "D032", "--db", db, small_scene.map]
    dry = millesimed("init", *common, "--dry-run", "--json")
    assert dry.returncode == 0 and not db.exists()
    made = json.loads(millesimed("init", *common, "--json").stdout)
    assert made == json.loads(dry.stdout) and made["valid"]
    again = millesimed("init", *common)
    assert again.returncode == 1 and "exists already" in again.stderr
    added = millesimed(
        *("reference", "add", "--db", db, small_scene.reference),
        *("--acquired", "2021-07-02", "--sensor", "pva", "--json"),
    )
    assert json.loads(added.stdout)["images"] == 1
    announced = millesimed(
        *("announce", small_scene.after, "--acquired", "2024-06-18", "--sensor", "pva"),
        *("--inbox", tmp_path / "inbox", "--json"),
    )
    assert json.loads(announced.stdout)["id"].startswith("pva-20240618-")
    assert len(list((tmp_path / "inbox").glob("*.json"))) == 1
    verdict = json.loads(millesimed("verify", "--db", db, "--deep", "--json").stdout)
    assert verdict["valid"] and verdict["polygons"] == made["polygons"]
    for format_, name in (("gpkg", "a.gpkg"), ("shp", "a.shp"), ("fgb", "a.fgb"), ("cog", "a.tif")):
        out = tmp_path / "out" / name
        written = millesimed(
            *("export", "--db", db, "--millesime", "2021"),
            *("--format", format_, "--out", out, "--json"),
        )
        assert written.returncode == 0, written.stderr
        rows = json.loads(written.stdout)
        assert out.is_file() and out.with_suffix(".xml").is_file()
        assert rows["pixels"] > 0 if format_ == "cog" else rows["polygons"] == made["polygons"]
    empty = json.loads(millesimed("diff", "2021", "2024", "--db", db, "--json").stdout)
    assert empty["evolutions"] == 0 and empty["matrix"] == {}
    assert json.loads(millesimed("alerts", "list", "--db", db, "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify", "--db", "none.duckdb"], 1, "millesimed init"),
        (["verify"], 2, "--db"),
        (["export", "--db", "x", "--millesime", "2021", "--format", "dwg", "--out", "y"], 2, "dwg"),
        (["evaluate", "none"], 1, "no folder"),
        (["detect", "a.tif", "b.tif", "--out", "o", "--detector", "cva"], 1, "a.tif"),
        (["run", "--role", "juggle", "--db", "x"], 2, "juggle"),
        (["frobnicate"], 2, "frobnicate"),
    ],
)
def test_errors_are_one_sentence_and_the_exit_code_says_whose(tmp_path, arguments, code, words):
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr


def test_schemas_are_written(tmp_path):
    done = millesimed("schemas", "--out", tmp_path / "s", "--json")
    assert len(json.loads(done.stdout)["files"]) == 9
