"""Deployment files say what the code says."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from daemon.catalogue import CATALOGUE
from daemon.metrics import Metrics
from deploy.dashboards import documents

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
BOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
NAME = re.compile(r"\b(?:millesimed|process)_[a-z_]+\b(?!:)")
RECORD = re.compile(r"\b[a-z_]+:(?:millesimed_[a-z_]+):[a-z0-9_]+\b")
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}


def exported() -> dict[str, str]:
    """Name of every series, and of the metric it is of."""
    found = [(f.name, f.type) for f in Metrics().registry.collect()]
    found += [(f.name, f.kind.value) for f in CATALOGUE.values() if f.only]
    return {name + s: name for name, kind in found for s in SUFFIXES.get(kind, [""])}


def rules() -> list[dict]:
    files = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"]
    groups = [g for f in files for g in yaml.safe_load((PROMETHEUS / f).read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]


def panels(board: Path) -> list[dict]:
    return [p for p in json.loads(board.read_text())["panels"] if p["type"] != "row"]


def expressions() -> list[str]:
    asked = [t["expr"] for board in BOARDS for p in panels(board) for t in p["targets"]]
    return asked + [rule["expr"] for rule in rules()]


def test_rules_and_dashboards_ask_for_what_is_there_and_nothing_is_exported_unasked():
    names, records = exported(), {rule["record"] for rule in rules() if "record" in rule}
    used, recorded = set(), set()
    for text in expressions():
        recorded |= set(RECORD.findall(text))
        used |= set(NAME.findall(RECORD.sub("", text)))
    assert used <= names.keys()
    assert recorded == records  # none unknown, none for nobody
    assert {names[name] for name in used} == set(names.values())


def test_the_dashboards_are_what_their_script_makes():
    assert {board.name: board.read_text() for board in BOARDS} == documents()


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: b.stem)
def test_panels_say_what_they_show_and_where_the_data_comes_from(board):
    page = json.loads(board.read_text())
    variables = {v["name"]: v for v in page["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    provisioned = DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yaml"
    (source,) = yaml.safe_load(provisioned.read_text())["datasources"]
    assert variables["datasource"]["current"]["value"] == source["uid"]
    taken = set()
    for panel in page["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24 and not cells & taken
        taken |= cells
    for panel in panels(board):
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"] and panel["description"].endswith(".") and panel["targets"]
    ids = [panel["id"] for panel in page["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda r: r["alert"])
def test_every_alert_says_what_to_do(rule):
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["description"].endswith(".")
    document, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    entry = (ROOT / document).read_text().split(f"\n### {rule['alert']}\n")
    assert len(entry) == 2
    text = entry[1].split("\n#")[0]
    assert all(f"\n{part}: " in text for part in ("Means", "Look at", "Do"))


def test_every_alert_is_tried_where_it_fires_and_where_it_does_not():
    cases = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    fires = {c["alertname"] for t in cases for c in t["alert_rule_test"] if c["exp_alerts"]}
    assert fires == {rule["alert"] for rule in ALERTS}
    for case in cases:
        for tried in case["alert_rule_test"]:
            # a series of the same test that does not fire, or a time at which none does
            names = {text["series"].split("{")[0] for text in case["input_series"]}
            ways = max(
                sum(text["series"].startswith(name + "{") for text in case["input_series"])
                for name in names
            )
            quiet = any(
                not other["exp_alerts"]
                for other in case["alert_rule_test"]
                if other["alertname"] == tried["alertname"]
            )
            assert quiet or ways > len(tried["exp_alerts"]), tried["alertname"]


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed"
)


@needs_promtool
@pytest.mark.parametrize("call", ["check config prometheus.yml", "test rules rules_test.yml"])
def test_promtool_accepts_the_files_and_the_rules_pass_their_tests(call):
    done = subprocess.run(
        ["promtool", *call.split()], cwd=PROMETHEUS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_metrics_text_follows_the_conventions():
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=Metrics().text(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
