"""A QGIS project on the collections of a service: every layer by OGC API - Features, in the
official colours.

What stands in it is what QGIS 3.22 and later write themselves, less what they fill in on reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.etree import ElementTree as ET

import shapely
from pyproj import CRS
from shapely.geometry import box

from daemon.feeds import WORDS
from daemon.ogc.changes import AlertLayer, DifferentialLayer
from daemon.ogc.layers import Layer
from schemas.alert import AlertKind
from schemas.nomenclature import COUVERTURE, CS_LEAVES, Code
from updater.crs import WGS84
from updater.product import qml
from updater.store import Store

DOCTYPE: Final = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
VERSION: Final = "3.22.0"
"""The oldest QGIS that reads a symbol's properties as they are written here."""
MEDIA: Final = "application/x-qgis-project"
RED, GREEN, GREY = "#c81e1e", "#1e8c3c", "#969696"
ORANGE, BLUE, PURPLE = "#e68214", "#285ab4", "#783296"
LEGAL: Final = {
    "1": Code("1", "Artificialisation", RED),
    "-1": Code("-1", "Désartificialisation", GREEN),
    "0": Code("0", "Sans effet légal", GREY),
}
KINDS: Final = {
    kind.value: Code(kind.value, WORDS["fr"][kind], colour)
    for kind, colour in zip(AlertKind, (RED, GREEN, ORANGE, BLUE, PURPLE, GREY), strict=True)
}


def project(layers: Sequence[Layer], base: str) -> str:
    """The project file (``.qgs``); ``base``: address of the service. The newest map and the alerts
    are shown, the rest is there to be switched on."""
    stores = list(dict.fromkeys(layer.store for layer in layers))
    crs = stores[0].crs if stores else WGS84
    root = ET.Element("qgis", version=VERSION, projectname="OCS GE")
    ET.SubElement(root, "homePath", path="")
    ET.SubElement(root, "title").text = "OCS GE"
    _crs(ET.SubElement(root, "projectCrs"), crs)
    own = ET.SubElement(ET.SubElement(root, "properties"), "SpatialRefSys")
    # without it QGIS does not read the CRS of a project
    ET.SubElement(own, "ProjectionsEnabled", type="int").text = "1"
    tree = ET.SubElement(root, "layer-tree-group")
    canvas = ET.SubElement(root, "mapcanvas", name="theMapCanvas", annotationsVisible="1")
    ET.SubElement(canvas, "units").text = "meters"
    extents = [box(*layer.extent) for layer in layers if layer.extent and layer.store.crs == crs]
    if extents:
        _extent(canvas, shapely.total_bounds(extents).tolist())
    _crs(ET.SubElement(canvas, "destinationsrs"), crs)
    maps = ET.SubElement(root, "projectlayers")
    for store in stores:
        group = ET.SubElement(
            tree, "layer-tree-group", name=store.territory, checked="Qt::Checked", expanded="1"
        )
        newest, ordered = _ordered(layers, store)
        for layer in ordered:
            shown = layer is newest or isinstance(layer, AlertLayer)
            name = layer.id.replace("-", "_")
            source = source_of(layer, base)
            ET.SubElement(
                group,
                "layer-tree-layer",
                id=name,
                name=layer.title,
                providerKey="OAPIF",
                source=source,
                checked="Qt::Checked" if shown else "Qt::Unchecked",
                expanded="0",
            )
            maps.append(_layer(layer, name, source))
    ET.indent(root)
    return DOCTYPE + ET.tostring(root, encoding="unicode") + "\n"


def source_of(layer: Layer, base: str) -> str:
    """What QGIS calls the address of a collection."""
    return (
        " pagingEnabled='true' preferCoordinatesForWfsT11='false' restrictToRequestBBOX='1' "
        f"srsname='OGC:CRS84' typename='{layer.id}' url='{base}/ogc'"
    )


def _ordered(layers: Sequence[Layer], store: Store) -> tuple[Layer | None, list[Layer]]:
    """The newest map of a store, and its layers from the top: alerts, changes, maps."""
    mine = [layer for layer in layers if layer.store is store]
    alerts = [layer for layer in mine if isinstance(layer, AlertLayer)]
    changes = [layer for layer in mine if isinstance(layer, DifferentialLayer)]
    maps = [layer for layer in reversed(mine) if layer not in alerts and layer not in changes]
    return next(iter(maps), None), [*alerts, *changes, *maps]


def _layer(layer: Layer, name: str, source: str) -> ET.Element:
    found = ET.Element("maplayer", type="vector", geometry="Polygon")
    if layer.world is not None:
        _extent(found, layer.world)
    ET.SubElement(found, "id").text = name
    ET.SubElement(found, "datasource").text = source
    ET.SubElement(found, "layername").text = layer.title
    _crs(ET.SubElement(found, "srs"), WGS84)
    ET.SubElement(found, "provider", encoding="").text = "OAPIF"
    found.append(_renderer(layer))
    ET.SubElement(found, "layerOpacity").text = "1"
    return found


def _renderer(layer: Layer) -> ET.Element:
    """Colours: the official ones of covers, or what a change is."""
    if isinstance(layer, AlertLayer):
        text = qml("kind", KINDS)
    elif isinstance(layer, DifferentialLayer):
        text = qml("artificialisation", LEGAL)
    else:
        text = qml("code_cs", {code: COUVERTURE[code] for code in CS_LEAVES})
    found = ET.fromstring(text).find("renderer-v2")  # noqa: S314 - a style of our own
    if found is None:
        raise ValueError("a style without a renderer")
    return found


def _extent(parent: ET.Element, bounds: Sequence[float]) -> None:
    found = ET.SubElement(parent, "extent")
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), bounds, strict=True):
        ET.SubElement(found, name).text = repr(float(value))


def _crs(parent: ET.Element, code: str) -> None:
    crs = CRS.from_user_input(code)
    found = ET.SubElement(parent, "spatialrefsys")
    ET.SubElement(found, "wkt").text = crs.to_wkt("WKT2_2019")
    epsg = crs.to_epsg()
    if epsg is not None:
        ET.SubElement(found, "srid").text = str(epsg)
        ET.SubElement(found, "authid").text = f"EPSG:{epsg}"
    ET.SubElement(found, "description").text = crs.name
    ET.SubElement(found, "geographicflag").text = str(crs.is_geographic).lower()
