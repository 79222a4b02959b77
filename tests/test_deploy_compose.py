"""The compose files: valid, closed to the outside, true to the program and to each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import typer
import yaml

from daemon.cli import app
from daemon.config import load
from schemas.envelope import MODELS
from tests.deployed import DEPLOY, dockerfile

FILES = ["compose.yaml", "compose.cuda.yaml"]
BETWEEN_ROLES = {"millesimed.tasks", "millesimed.judgements"}
OWN = ["millesimed", "update", "detect"]
"""Services that run this project's image."""


def compose(name="compose.yaml"):
    return yaml.safe_load((DEPLOY / name).read_text())


SERVICES = compose()["services"]


def checked(path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, str(path)], capture_output=True, check=False).returncode


@pytest.mark.parametrize("name", FILES)
def test_they_keep_to_the_compose_specification(name):
    assert checked(DEPLOY / name) == 0


def test_the_check_finds_what_does_not(tmp_path):
    text = (DEPLOY / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(text.replace("read_only: true", "readonly: true"))
    assert checked(tmp_path / "compose.yaml") != 0


def test_kafka_runs_in_kraft_mode_and_everything_is_published_on_loopback_only():
    assert "controller" in SERVICES["kafka"]["environment"]["KAFKA_PROCESS_ROLES"]
    assert "zookeeper" not in json.dumps(SERVICES).lower()
    for service in SERVICES.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_topic_is_made():
    (script,) = SERVICES["topics"]["command"]
    made = dict(re.findall(r"--topic (\S+) --partitions (\d+)", script))
    assert made.keys() == {topic for topic, _ in MODELS.values()} | BETWEEN_ROLES
    assert made["millesimed.tasks"] == made["millesimed.acquisitions"]


def test_one_does_everything_unless_the_work_is_shared():
    profiles = {name: SERVICES[name]["profiles"] for name in OWN}
    assert profiles == {"millesimed": ["all"], "update": ["scale"], "detect": ["scale"]}
    assert "COMPOSE_PROFILES=all\n" in (DEPLOY / ".env").read_text()
    assert not any("profiles" in s for name, s in SERVICES.items() if name not in OWN)


@pytest.mark.parametrize("name", OWN)
def test_the_projects_containers_have_no_rights_and_bounds(name):
    service = SERVICES[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
    mounted = {volume.split(":")[1] for volume in service["volumes"]}
    assert service["environment"]["TMPDIR"] in mounted
    assert service["deploy"]["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", OWN)
def test_their_commands_are_the_programs(name):
    args = SERVICES[name]["command"]
    place = args.index("run")
    group = typer.main.get_command(app)
    assert set(args[:place]) <= {option for p in group.params for option in p.opts}
    given = group.commands["run"].make_context("run", args[place + 1 :]).params
    assert given["role"] == {"millesimed": "all"}.get(name, name)
    targets = [volume.split(":")[1] for volume in SERVICES[name]["volumes"]]
    assert str(given["config"]) in targets


def test_workers_share_a_volume_and_only_one_writes_the_map():
    shared = [SERVICES[name]["environment"]["MILLESIMED_EXCHANGE"] for name in ("update", "detect")]
    assert shared[0] == shared[1]
    for name in ("update", "detect"):
        assert "shared:/shared" in SERVICES[name]["volumes"]
    assert "data:/data" in SERVICES["update"]["volumes"]
    assert "data:/data:ro" in SERVICES["detect"]["volumes"]


def test_what_is_mounted_and_built_is_there():
    named = set(compose()["volumes"])
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in named or (source.startswith("./") and (DEPLOY / source).exists())
    assert named == {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if not volume.startswith("./")
    }
    targets = {
        s["build"]["target"] for n in FILES for s in compose(n)["services"].values() if "build" in s
    }
    assert targets == set(re.findall(r"^FROM runtime AS (\w+)$", dockerfile(), re.MULTILINE))


def test_the_port_is_the_configured_one_and_prometheus_asks_it():
    port = load(DEPLOY / "millesimed.toml").http.port
    for name in ("millesimed", "update"):
        assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert SERVICES["update"]["networks"]["default"]["aliases"] == ["millesimed"]
    (job,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    assert job["static_configs"] == [{"targets": [f"millesimed:{port}"]}]
    assert job["dns_sd_configs"] == [{"names": ["detect"], "type": "A", "port": port}]


@pytest.mark.parametrize("name", ["kafka", "prometheus", "grafana"])
def test_what_others_wait_for_says_when_it_is_ready(name):
    service = SERVICES[name]
    assert service["healthcheck"]["test"] and service["deploy"]["resources"]["limits"]["memory"]
    assert re.search(r":v?\d+\.\d+\.\d+$", service["image"])  # no moving tag


def test_whoever_detects_has_one_gpu():
    given = compose("compose.cuda.yaml")["services"]
    assert given.keys() == {"millesimed", "detect"}
    for service in given.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
