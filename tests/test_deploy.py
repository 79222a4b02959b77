"""Deployment files say what the code says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from daemon.metrics import Metrics

DEPLOY = Path(__file__).parent.parent / "deploy"
NAME = re.compile(r"\bmillesimed_[a-z_]+\b")


def exported() -> set[str]:
    names = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        names |= {family.name + s for s in suffixes.get(family.type, [""])}
    return names


def test_every_metric_of_rules_and_dashboards_exists():
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for board in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        panels = json.loads(board.read_text())["panels"]
        expressions += [t["expr"] for panel in panels for t in panel["targets"]]
    used = {name for text in expressions for name in NAME.findall(text)}
    assert used and used <= exported()


def test_compose_runs_kafka_in_kraft_mode_and_publishes_on_loopback_only():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = compose["services"]
    assert {"kafka", "millesimed", "prometheus", "grafana"} <= set(services)
    assert "controller" in services["kafka"]["environment"]["KAFKA_PROCESS_ROLES"]
    assert "zookeeper" not in json.dumps(services).lower()
    for service in services.values():
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    assert services["millesimed"]["read_only"] and services["millesimed"]["cap_drop"] == ["ALL"]
    for volume in services["millesimed"]["volumes"] + services["prometheus"]["volumes"]:
        source = volume.split(":")[0]
        assert not source.startswith("./") or (DEPLOY / source).exists()


def test_the_container_is_not_root():
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER 10001", text, re.M) and "HEALTHCHECK" in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("check", [["config", "prometheus.yml"], ["rules", "rules.yml"]])
def test_promtool_accepts_the_files(check):
    done = subprocess.run(
        ["promtool", "check", *check],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_metrics_text_follows_the_conventions():
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=Metrics().text(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
