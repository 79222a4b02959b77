"""How IGN's product looks from outside: file names, official styles, metadata.

Names follow the deliveries on the Géoplateforme (``OCS-GE_2-0__GPKG_LAMB93_D032_2024-01-01``);
styles are QGIS's own (QML in the ``layer_styles`` table of a GeoPackage); metadata is the minimum
of ISO 19115 in its XML (ISO 19139).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET

import pandas as pd

from schemas.nomenclature import COUVERTURE, CS_LEAVES, US_CODES, USAGE, Code
from updater.store import Store
from updater.territories import Territory

CRS_TOKENS: Final = {
    "EPSG:2154": "LAMB93",
    "EPSG:5490": "RGAF09UTM20",
    "EPSG:32620": "RGAF09UTM20",
    "EPSG:2972": "RGFG95UTM22",
    "EPSG:2975": "RGR92UTM40S",
    "EPSG:4471": "RGM04UTM38S",
}
FORMAT_TOKENS: Final = {
    "gpkg": "GPKG",
    "shp": "SHP",
    "geoparquet": "PARQUET",
    "fgb": "FGB",
    "cog": "TIFF",
}
SUFFIXES: Final = {
    "gpkg": ".gpkg",
    "shp": ".zip",
    "geoparquet": ".parquet",
    "fgb": ".fgb",
    "cog": ".tif",
}
GMD: Final = "http://www.isotc211.org/2005/gmd"
GCO: Final = "http://www.isotc211.org/2005/gco"
GML: Final = "http://www.opengis.net/gml"


@dataclass(frozen=True, slots=True)
class Product:
    """What a file holds: the département, the territory cut out of it, the millésime, the CRS."""

    departement: str
    territory: str
    territory_name: str
    millesime: int
    crs: str

    def name(self, format_: str) -> str:
        """The file's name without its suffix, as IGN names its deliveries."""
        token = CRS_TOKENS.get(self.crs, self.crs.replace(":", ""))
        place = self.departement
        if self.territory != self.departement:
            place = f"{place}_{self.territory}"
        return f"OCS-GE_2-0__{FORMAT_TOKENS[format_]}_{token}_{place}_{self.millesime}-01-01"

    @classmethod
    def of(cls, store: Store, place: Territory | None, millesime: int) -> Product:
        """A millésime of a store, of a territory of it or whole."""
        return cls(
            departement=store.territory,
            territory=place.code if place else store.territory,
            territory_name=place.name if place else store.territory,
            millesime=millesime,
            crs=store.crs,
        )

    @property
    def title(self) -> str:
        """What a person calls it."""
        return f"OCS GE {self.millesime}, {self.territory_name} ({self.departement})"


def styles(layer: str, geometry: str = "geom") -> pd.DataFrame:
    """Rows of ``layer_styles``: cover (the default) and usage in the official colours."""
    rows = []
    for field, codes, table, title in (
        ("code_cs", CS_LEAVES, COUVERTURE, "Couverture"),
        ("code_us", US_CODES, USAGE, "Usage"),
    ):
        rows.append(
            {
                "f_table_catalog": "",
                "f_table_schema": "",
                "f_table_name": layer,
                "f_geometry_column": geometry,
                "styleName": title,
                "styleQML": qml(field, {code: table[code] for code in codes}),
                "styleSLD": "",
                "useAsDefault": field == "code_cs",
                "description": f"OCS GE, {title.lower()}, couleurs officielles",
                "owner": "",
                "ui": "",
                "update_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            }
        )
    return pd.DataFrame(rows)


def qml(field: str, codes: Mapping[str, Code]) -> str:
    """A QGIS style: one filled symbol for each code, in its official colour, with its label."""
    root = ET.Element("qgis", version="3.28", styleCategories="Symbology")
    renderer = ET.SubElement(root, "renderer-v2", type="categorizedSymbol", attr=field)
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for number, (code, entry) in enumerate(codes.items()):
        label = f"{code} {entry.label}"
        ET.SubElement(
            categories, "category", value=code, symbol=str(number), label=label, render="true"
        )
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1")
        layer = ET.SubElement(symbol, "layer", {"class": "SimpleFill", "enabled": "1"})
        options = ET.SubElement(layer, "Option", type="Map")
        colour = ",".join(map(str, (*entry.rgb, 255)))
        for name, value in (("color", colour), ("style", "solid"), ("outline_style", "no")):
            ET.SubElement(options, "Option", name=name, value=value, type="QString")
    text = ET.tostring(root, encoding="unicode")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{text}"


def metadata(product: Product, bounds: tuple[float, float, float, float], *, holds: str) -> str:
    """The minimum of ISO 19115 about one file.

    ``bounds``: west, south, east, north in degrees (EPSG:4326); ``holds``: what is in it.
    """
    for prefix, uri in (("gmd", GMD), ("gco", GCO), ("gml", GML)):
        ET.register_namespace(prefix, uri)
    root = ET.Element(f"{{{GMD}}}MD_Metadata")
    today = datetime.now(UTC).date().isoformat()
    _text(root, ["fileIdentifier"], product.name("gpkg"))
    _code(root, "language", "LanguageCode", "fre")
    _code(root, "hierarchyLevel", "MD_ScopeCode", "dataset")
    party = _down(root, ["contact", "CI_ResponsibleParty"])
    _text(party, ["organisationName"], "Producteur du département (millesimed)")
    _code(party, "role", "CI_RoleCode", "processor")
    date_stamp = ET.SubElement(root, f"{{{GMD}}}dateStamp")
    ET.SubElement(date_stamp, f"{{{GCO}}}Date").text = today
    system = _down(root, ["referenceSystemInfo", "MD_ReferenceSystem", "referenceSystemIdentifier"])
    _text(_down(system, ["RS_Identifier"]), ["code"], product.crs)
    about = _down(root, ["identificationInfo", "MD_DataIdentification"])
    citation = _down(about, ["citation", "CI_Citation"])
    _text(citation, ["title"], product.title)
    date = _down(citation, ["date", "CI_Date"])
    moment = _down(date, ["date"])
    ET.SubElement(moment, f"{{{GCO}}}Date").text = f"{product.millesime}-01-01"
    _code(date, "dateType", "CI_DateTypeCode", "creation")
    _text(
        about,
        ["abstract"],
        f"Occupation du sol à grande échelle, millésime {product.millesime} : {holds}, "
        "mis à jour par détection de changement.",
    )
    scale = _down(
        about,
        [
            "spatialResolution",
            "MD_Resolution",
            "equivalentScale",
            "MD_RepresentativeFraction",
            "denominator",
        ],
    )
    ET.SubElement(scale, f"{{{GCO}}}Integer").text = "2500"
    _code(about, "language", "LanguageCode", "fre")
    topic = ET.SubElement(about, f"{{{GMD}}}topicCategory")
    ET.SubElement(topic, f"{{{GMD}}}MD_TopicCategoryCode").text = "imageryBaseMapsEarthCover"
    box = _down(about, ["extent", "EX_Extent", "geographicElement", "EX_GeographicBoundingBox"])
    west, south, east, north = bounds
    for name, value in (
        ("westBoundLongitude", west),
        ("eastBoundLongitude", east),
        ("southBoundLatitude", south),
        ("northBoundLatitude", north),
    ):
        edge = ET.SubElement(box, f"{{{GMD}}}{name}")
        ET.SubElement(edge, f"{{{GCO}}}Decimal").text = f"{value:.6f}"
    quality = _down(root, ["dataQualityInfo", "DQ_DataQuality"])
    _code(_down(quality, ["scope", "DQ_Scope"]), "level", "MD_ScopeCode", "dataset")
    _text(
        _down(quality, ["lineage", "LI_Lineage"]),
        ["statement"],
        "Millésime précédent, corrigé des seuls polygones dont deux prises de vue montrent le "
        "changement ; chaque polygone garde sa filiation.",
    )
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _down(parent: ET.Element, names: list[str]) -> ET.Element:
    for name in names:
        parent = ET.SubElement(parent, f"{{{GMD}}}{name}")
    return parent


def _text(parent: ET.Element, names: list[str], value: str) -> None:
    ET.SubElement(_down(parent, names), f"{{{GCO}}}CharacterString").text = value


def _code(parent: ET.Element, name: str, list_: str, value: str) -> None:
    place = _down(parent, [name])
    source = f"http://standards.iso.org/iso/19139/resources/gmxCodelists.xml#{list_}"
    entry = ET.SubElement(place, f"{{{GMD}}}{list_}", codeList=source, codeListValue=value)
    entry.text = value
