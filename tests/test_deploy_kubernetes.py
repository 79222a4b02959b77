"""The Kubernetes manifests as they are applied: rendered, valid, and true to the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib

import kubernetes_validate
import pytest
import typer
import yaml

from daemon.cli import app
from daemon.config import Settings
from daemon.http import application
from daemon.metrics import Metrics
from tests.deployed import DEPLOY, dockerfile

KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.33"
"""Oldest release the manifests are held against."""
OPERATORS = {"ScaledObject", "ServiceMonitor"}
"""Kinds that come with KEDA and the Prometheus operator, of which there are no schemas here."""
OVERLAYS = ["cpu", "cuda"]
WORKLOADS = {"StatefulSet", "Deployment"}

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def rendered(name):
    done = subprocess.run(
        ["kubectl", "kustomize", KUBERNETES / "overlays" / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request):
    return request.param, rendered(request.param)


@pytest.fixture
def objects(overlay):
    return overlay[1]


def named(objects, kind, name=None):
    found = [o for o in objects if o["kind"] == kind and name in {None, o["metadata"]["name"]}]
    assert found, f"no {kind} {name or ''}"
    return found


def workloads(objects):
    return [o for o in objects if o["kind"] in WORKLOADS]


def template(workload):
    return workload["spec"]["template"]


def container(workload):
    (found,) = template(workload)["spec"]["containers"]
    return found


def config(objects):
    (found,) = named(objects, "ConfigMap")
    return found["data"]["millesimed.toml"]


def read(objects):
    """The configuration, without what only roles of their own know."""
    values = tomllib.loads(config(objects))
    assert values.keys() <= Settings.model_fields.keys() | {"exchange"}
    return {name: value for name, value in values.items() if name in Settings.model_fields}


def test_every_object_is_valid_and_has_no_field_too_many(objects):
    for found in objects:
        if found["kind"] not in OPERATORS:
            kubernetes_validate.validate(found, VERSION, strict=True)


def test_the_check_finds_a_field_too_many(objects):
    (workload,) = named(objects, "Deployment")
    container(workload)["readOnlyRoot"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(workload, VERSION, strict=True)


def test_everything_lies_in_the_namespace(objects):
    (space,) = named(objects, "Namespace")
    for found in objects:
        if found is not space:
            assert found["metadata"]["namespace"] == space["metadata"]["name"], found["kind"]
    assert space["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_what_a_pod_names_is_there(objects):
    accounts = {o["metadata"]["name"] for o in named(objects, "ServiceAccount")}
    claims = {o["metadata"]["name"] for o in named(objects, "PersistentVolumeClaim")}
    maps = {o["metadata"]["name"] for o in named(objects, "ConfigMap")}
    for workload in workloads(objects):
        pod = template(workload)["spec"]
        assert pod["serviceAccountName"] in accounts and not pod["automountServiceAccountToken"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name") in maps | {None}
            assert volume.get("persistentVolumeClaim", {}).get("claimName") in claims | {None}
        own = {t["metadata"]["name"] for t in workload["spec"].get("volumeClaimTemplates", [])}
        mounted = {mount["name"] for mount in container(workload)["volumeMounts"]}
        assert mounted == volumes.keys() | own
        for source in container(workload)["envFrom"]:
            assert source["secretRef"]["optional"]  # it is for whoever has secrets


def selects(selector, labels):
    return selector.items() <= labels.items()


def test_selectors_select_the_pods_they_are_meant_for(objects):
    pods = {w["metadata"]["name"]: template(w)["metadata"]["labels"] for w in workloads(objects)}
    for workload in workloads(objects):
        wanted = workload["spec"]["selector"]["matchLabels"]
        name = workload["metadata"]["name"]
        assert [n for n, labels in pods.items() if selects(wanted, labels)] == [name]
        (budget,) = named(objects, "PodDisruptionBudget", name)
        assert budget["spec"]["selector"]["matchLabels"] == wanted
    for service in named(objects, "Service"):
        chosen = [n for n, labels in pods.items() if selects(service["spec"]["selector"], labels)]
        headless = service["spec"].get("clusterIP") == "None"
        assert chosen == (list(pods) if headless else ["millesimed-update"])
    (stateful,) = named(objects, "StatefulSet")
    (governing,) = named(objects, "Service", stateful["spec"]["serviceName"])
    assert governing["spec"]["clusterIP"] == "None"
    for policy in named(objects, "NetworkPolicy"):
        wanted = policy["spec"]["podSelector"].get("matchLabels", {})
        assert any(selects(wanted, labels) for labels in pods.values())


def test_ports_have_one_number_from_the_configuration_on(objects):
    http = Settings(**read(objects)).http
    port = http.port
    assert http.host == "0.0.0.0"
    assert f"EXPOSE {port}\n" in dockerfile()
    for workload in workloads(objects):
        (given,) = container(workload)["ports"]
        assert given["containerPort"] == port
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container(workload)[probe]["httpGet"]["port"] == given["name"]
    names = {p["name"] for s in named(objects, "Service") for p in s["spec"]["ports"]}
    targets = {p["targetPort"] for s in named(objects, "Service") for p in s["spec"]["ports"]}
    assert targets == {"http"}
    (readers,) = named(objects, "NetworkPolicy", "readers")
    assert readers["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": port}]
    (monitor,) = named(objects, "ServiceMonitor")
    assert {e["port"] for e in monitor["spec"]["endpoints"]} <= names


def test_probes_and_scrapes_ask_for_what_the_service_answers(objects):
    class Idle:
        alive = ready = True
        metrics = Metrics()

    known = set(application(Idle(), []).openapi()["paths"])
    for workload in workloads(objects):
        parts = container(workload)
        assert parts["livenessProbe"]["httpGet"]["path"] == "/healthz"
        assert parts["readinessProbe"]["httpGet"]["path"] == "/readyz"
        assert {parts[p]["httpGet"]["path"] for p in parts if p.endswith("Probe")} <= known
    (monitor,) = named(objects, "ServiceMonitor")
    assert {e["path"] for e in monitor["spec"]["endpoints"]} == {"/metrics"}
    services = named(objects, "Service")
    wanted = monitor["spec"]["selector"]["matchLabels"]
    (chosen,) = (s for s in services if selects(wanted, s["metadata"]["labels"]))
    assert chosen["spec"]["clusterIP"] == "None"
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = scraped["scrape_configs"]  # rules and dashboards go by its name
    assert chosen["metadata"]["labels"][monitor["spec"]["jobLabel"]] == job["job_name"]


def test_the_command_is_one_of_the_program(objects):
    group = typer.main.get_command(app)
    entry = re.search(r'^ENTRYPOINT \["(\w+)"\]$', dockerfile(), re.MULTILINE)
    assert entry
    roles = set()
    for workload in workloads(objects):
        assert "command" not in container(workload)
        args = container(workload)["args"]
        place = args.index("run")
        assert set(args[:place]) <= {o for p in group.params for o in p.opts}
        given = group.commands["run"].make_context("run", args[place + 1 :]).params
        roles.add(given["role"])
        mounts = {m["mountPath"]: m["name"] for m in container(workload)["volumeMounts"]}
        assert mounts[str(given["config"].parent)] == "config"
        assert given["config"].name == "millesimed.toml"
    assert roles == {"update", "detect"}


def test_the_configuration_keeps_to_what_is_mounted(objects):
    values = tomllib.loads(config(objects))
    (stateful,) = named(objects, "StatefulSet")
    mounts = {m["mountPath"] for m in container(stateful)["volumeMounts"]}
    paths = [*values["db"], values["outbox"], values["exchange"], values["acquire_folder"]]
    for path in [*paths, *(f"{root}/x" for root in values["asset_roots"])]:
        assert any(path.startswith(f"{mount}/") for mount in mounts), path
    (deployment,) = named(objects, "Deployment")
    shared = [
        {m["mountPath"] for m in container(w)["volumeMounts"] if m["name"] == "shared"}
        for w in (stateful, deployment)
    ]
    assert shared[0] == shared[1]


def test_pods_have_no_rights(objects):
    uid = int(re.search(r"^USER (\d+):\1$", dockerfile(), re.MULTILINE)[1])
    for workload in workloads(objects):
        pod, own = template(workload)["spec"]["securityContext"], container(workload)
        assert pod["runAsNonRoot"] and pod["runAsUser"] == pod["fsGroup"] == uid
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "/tmp" in {mount["mountPath"] for mount in own["volumeMounts"]}
        assert own["resources"]["limits"]["memory"] and own["resources"]["requests"]["cpu"]


def test_gpus_are_for_who_detects(overlay):
    name, objects = overlay
    for workload in workloads(objects):
        wanted = container(workload)["resources"]["limits"].get("nvidia.com/gpu")
        detects = workload["metadata"]["name"] == "millesimed-detect"
        assert wanted == ("1" if detects and name == "cuda" else None)
        assert container(workload)["image"].endswith(f"-{name}")


def test_detect_workers_follow_the_lag_of_their_own_topic(objects):
    (scaled,) = named(objects, "ScaledObject")
    (deployment,) = named(objects, "Deployment", scaled["spec"]["scaleTargetRef"]["name"])
    assert "replicas" not in deployment["spec"]  # which would be set back at every apply
    (trigger,) = scaled["spec"]["triggers"]
    kafka, own = trigger["metadata"], Settings(**read(objects)).kafka
    assert trigger["type"] == "kafka" and kafka["bootstrapServers"] == own.servers
    assert kafka["consumerGroup"] == f"{own.group}-detect"
    assert kafka["topic"] == "millesimed.tasks"
    compose = (DEPLOY / "compose.yaml").read_text()
    partitions = re.search(r"--topic millesimed\.tasks --partitions (\d+)", compose)
    assert scaled["spec"]["maxReplicaCount"] == int(partitions[1])
