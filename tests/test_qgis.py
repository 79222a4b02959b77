"""The QGIS project: what QGIS needs stands in it, GDAL opens its layers, and so does QGIS."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from pyproj import CRS
from typer.testing import CliRunner

from daemon.cli import app
from schemas.nomenclature import COUVERTURE, CS_LEAVES
from tests.served import api
from tests.standards import EAST, NORTH, SIDE, lambert_store

QGIS_PYTHON = Path("/usr/bin/python3")
"""Debian's, which has QGIS's modules where ``python3-qgis`` is installed."""
OPEN_IN_QGIS = """
import json, sys
from qgis.core import QgsApplication, QgsProject
app = QgsApplication([], False)
app.initQgis()
project = QgsProject.instance()
read = project.read(sys.argv[1])
found = {"read": read, "crs": project.crs().authid(), "layers": {}}
for layer in project.mapLayers().values():
    renderer = layer.renderer()
    found["layers"][layer.name()] = {
        "valid": layer.isValid(),
        "provider": layer.providerType(),
        "count": sum(1 for _ in layer.getFeatures()),
        "crs": layer.crs().authid(),
        "shown": project.layerTreeRoot().findLayer(layer).isVisible(),
        "colours": {
            str(c.value()): c.symbol().color().name() for c in renderer.categories()
        },
    }
print(json.dumps(found))
sys.stdout.flush()
import os
os._exit(0)
"""


def has_qgis():
    if not QGIS_PYTHON.exists():
        return False
    probe = [QGIS_PYTHON, "-c", "import qgis.core"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = lambert_store(tmp_path_factory.mktemp("qgis") / "D032.duckdb", cells=60)
    yield made
    made.close()


@pytest.fixture(scope="module")
def call(store):
    with api([store], {}) as client:
        yield client


@pytest.fixture(scope="module")
def text(call):
    answer = call("GET", "/ogc/project.qgs")
    assert answer.status == 200
    return answer.body.decode()


def test_what_qgis_reads(text, call):
    assert text.startswith("<!DOCTYPE qgis")
    root = ET.fromstring(text)
    assert root.tag == "qgis" and root.findtext("projectCrs/spatialrefsys/authid") == "EPSG:2154"
    assert CRS.from_wkt(root.findtext("projectCrs/spatialrefsys/wkt")).to_epsg() == 2154
    extent = [
        float(root.findtext(f"mapcanvas/extent/{n}")) for n in ("xmin", "ymin", "xmax", "ymax")
    ]
    assert extent == [EAST, NORTH, EAST + SIDE, NORTH + SIDE]
    maps = {m.findtext("id"): m for m in root.iterfind("projectlayers/maplayer")}
    tree = root.findall("layer-tree-group/layer-tree-group/layer-tree-layer")
    assert [node.get("id") for node in tree] == [
        *("alertes_D032", "differentiel_D032_2021_2024", "ocsge_D032_2024", "ocsge_D032_2021")
    ] and set(maps) == {node.get("id") for node in tree}
    assert [n.get("checked") == "Qt::Checked" for n in tree] == [True, False, True, False]
    listed = {c["id"] for c in call("GET", "/ogc/collections").json["collections"]}
    for node in tree:
        layer = maps[node.get("id")]
        source = layer.findtext("datasource")
        assert source == node.get("source") and node.get("providerKey") == "OAPIF"
        assert layer.findtext("provider") == "OAPIF"
        parts = dict(re.findall(r"(\w+)='([^']*)'", source))
        assert parts["url"] == f"{call.url}/ogc" and parts["typename"] in listed
        assert layer.findtext("srs/spatialrefsys/authid") == "EPSG:4326"
        renderer = layer.find("renderer-v2")
        symbols = {s.get("name") for s in renderer.iterfind("symbols/symbol")}
        assert {c.get("symbol") for c in renderer.iterfind("categories/category")} == symbols


@pytest.mark.skipif(shutil.which("ogrinfo") is None, reason="needs the Debian package gdal-bin")
def test_gdal_opens_every_layer(text):
    for source in ET.fromstring(text).iterfind("projectlayers/maplayer/datasource"):
        parts = dict(re.findall(r"(\w+)='([^']*)'", source.text))
        command = ["ogrinfo", "-so", f"OAPIF:{parts['url']}", parts["typename"]]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        count = re.search(r"Feature Count: (\d+)", told.stdout)
        assert count and int(count.group(1)) > 5, told.stdout + told.stderr


@pytest.mark.long
def test_qgis_opens_every_layer_in_its_colours(text, call, tmp_path):
    if not has_qgis():
        pytest.skip("needs the Debian package python3-qgis")
    (tmp_path / "ocsge.qgs").write_text(text, encoding="utf-8")
    told = subprocess.run(
        [QGIS_PYTHON, "-c", OPEN_IN_QGIS, tmp_path / "ocsge.qgs"],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={"QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout.splitlines()[-1])
    assert found["read"] and found["crs"] == "EPSG:2154" and len(found["layers"]) == 4
    for collection in call("GET", "/ogc/collections").json["collections"]:
        layer = found["layers"][collection["title"]]
        items = call("GET", f"/ogc/collections/{collection['id']}/items?limit=2000").json
        assert layer["valid"] and layer["provider"] == "OAPIF" and layer["crs"] == "EPSG:4326"
        assert layer["count"] == items["numberReturned"]
        if collection["id"].startswith("ocsge"):
            official = {code: COUVERTURE[code].colour.lower() for code in CS_LEAVES}
            assert {k: v.lower() for k, v in layer["colours"].items()} == official
        else:
            assert len(set(layer["colours"].values())) >= 3


def test_the_command_writes_the_same(tmp_path, text, call):
    path = tmp_path / "made" / "D032.duckdb"
    lambert_store(path, cells=60).close()
    out = tmp_path / "ocsge.qgs"
    run = CliRunner().invoke(
        app, ["qgis", "--db", str(path), "--url", f"{call.url}/", "--out", str(out), "--json"]
    )
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout) == {"layers": 4, "path": str(out)}
    assert out.read_text(encoding="utf-8") == text
    run = CliRunner().invoke(app, ["qgis", "--db", str(path), "--url", "maps", "--out", str(out)])
    assert run.exit_code != 0 and "is no address" in str(run.exception)
