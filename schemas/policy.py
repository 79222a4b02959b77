"""Every threshold and policy of the service, each with the reason for its value.

Nothing here reads a file. A number that decides what patches, what warns and what is dropped
stands in this module and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.nomenclature import class_distance


class Sensor(StrEnum):
    """Families of imagery the service knows how to judge."""

    PVA = "pva"
    SPOT = "spot"
    PLEIADES = "pleiades"
    SENTINEL_2 = "sentinel-2"


@dataclass(frozen=True, slots=True)
class SensorPolicy:
    """What an image of one sensor may do.

    ``patches``: may move a line of the map. ``patch_probability``: smallest region probability
    that patches. ``alert_probability``: smallest that raises an alert. ``confirms_alone``:
    probability from which one look of this sensor confirms an alert. ``evidence_weight``: how
    much one look counts against a PVA look. ``max_gsd``: coarsest pixel, metres, still trusted.
    ``silence_days``: after that long without a look, evidence not yet confirmed starts anew.
    """

    patches: bool
    max_gsd: float
    patch_probability: float
    alert_probability: float
    confirms_alone: float
    evidence_weight: float
    min_alert_area: float
    silence_days: int


CAMPAIGN_SILENCE_DAYS: Final[int] = 4 * 365
"""A département is flown every three years; a year more for a campaign that slips."""

SENSOR_POLICY: Final[dict[Sensor, SensorPolicy]] = {
    # 0.2 m: a 200 m² building is 5 000 pixels; one image is proof enough when the model is sure.
    # gsd up to 1 m covers older campaigns (0.5 m) and Ortho-Express.
    Sensor.PVA: SensorPolicy(
        patches=True,
        max_gsd=1.0,
        patch_probability=0.5,
        alert_probability=0.5,
        confirms_alone=0.85,
        evidence_weight=1.0,
        min_alert_area=200.0,
        silence_days=CAMPAIGN_SILENCE_DAYS,
    ),
    # 0.5 m (0.7 m native): as PVA, with more off-nadir lean, so it confirms later.
    Sensor.PLEIADES: SensorPolicy(
        patches=True,
        max_gsd=1.0,
        patch_probability=0.5,
        alert_probability=0.5,
        confirms_alone=0.9,
        evidence_weight=0.9,
        min_alert_area=200.0,
        silence_days=CAMPAIGN_SILENCE_DAYS,
    ),
    # 1.5 m: a 200 m² building is 89 pixels, its outline ±1 pixel is 10 % of its area; patches,
    # but a single look never confirms.
    Sensor.SPOT: SensorPolicy(
        patches=True,
        max_gsd=2.0,
        patch_probability=0.6,
        alert_probability=0.5,
        confirms_alone=1.01,
        evidence_weight=0.7,
        min_alert_area=500.0,
        silence_days=CAMPAIGN_SILENCE_DAYS,
    ),
    # 10 m: the minimum unit of a building is two pixels. Never moves a line (design, "What may
    # patch"). 1 000 m² = 10 pixels is Theia's own minimum detected area. A year of silence starts
    # an alert anew, as in OPERA DIST-ALERT.
    Sensor.SENTINEL_2: SensorPolicy(
        patches=False,
        max_gsd=20.0,
        patch_probability=1.01,
        alert_probability=0.5,
        confirms_alone=1.01,
        evidence_weight=0.5,
        min_alert_area=1000.0,
        silence_days=365,
    ),
}


DRAWN_POLICY: Final = SensorPolicy(
    patches=True,
    max_gsd=1.0,
    patch_probability=0.0,
    alert_probability=0.0,
    confirms_alone=1.0,
    evidence_weight=1.0,
    min_alert_area=200.0,
    silence_days=CAMPAIGN_SILENCE_DAYS,
)
"""What a person drew: it patches, as a correction, and raises no alert of its own."""
DRAWN_GSD_M: Final[float] = 0.2
"""How fine a line drawn by a person is: over a BD ORTHO of 0.2 m. As with an image, three such
pixels (0.6 m, the precision of the cadastre in towns) are the line's doubt, not a change."""
CORRECTED_PROBABILITY: Final[float] = 0.95
"""From here on one newer image may redraw ground that a person corrected: well above what patches
elsewhere (0.5) and what confirms alone (0.85 to 0.9), because here somebody looked and said what
is there, and a change of just that ground since is rarer than a detector's error. Below it a second
newer image must agree."""

MAX_CORRECTION_FEATURES: Final[int] = 1_000
"""Polygons of one batch of corrections: it is one patch, planned in memory and in one transaction;
a thousand is minutes of a commune's own map and below a megabyte."""
MAX_CORRECTION_VERTICES: Final[int] = 20_000
"""Vertices of one batch: at some 24 bytes each, half of ``MAX_EVENT_BYTES``."""
TERRITORY_MARGIN_M: Final[float] = 1.0
"""How far ground may reach over the limit of the territory a token is bound to: outlines of
communes and of their own maps differ by some decimetres."""


def evidence_class(sensor: Sensor) -> int:
    """How good a sensor's evidence is: 1 where it may only warn, 2 where it draws the map."""
    return 2 if SENSOR_POLICY[sensor].patches else 1


BUILDING: Final[str] = "CS1.1.1.1"
PAVED: Final[str] = "CS1.1.1.2"
"""Roads, squares, car parks: the cover of networks."""

MMU_BUILT_M2: Final[float] = 200.0
"""Minimum unit of a built polygon (OCS GE specification)."""
MMU_INSIDE_M2: Final[float] = 500.0
"""Minimum unit of any other polygon inside the zone construite."""
MMU_OUTSIDE_M2: Final[float] = 2500.0
"""Minimum unit of any other polygon outside the zone construite."""
BUILDING_TAKEN_FROM_M2: Final[float] = 50.0
"""A building is mapped from this footprint; between it and 200 m² it is enlarged to 200 m²."""
WIDTH_NETWORK_M: Final[float] = 5.0
"""Minimum width of roads and rail."""
WIDTH_OTHER_M: Final[float] = 10.0
"""Minimum width of any other cover but buildings."""

GROWTH_FROM_M2: Final[float] = 200.0
"""Changed ground below its own minimum unit still counts from this area where it adjoins a polygon
of its new cover: it makes that polygon grow. It is the smallest unit the product knows; less is
the drift of an outline."""

COORDINATE_GRID_M: Final[float] = 0.01
"""Product coordinates are kept on a centimetre grid: finer than any image (0.2 m), coarse enough
that two computations of the same crossing agree."""

RELABEL_SHARE: Final[float] = 0.6
"""A change that covers this share of a polygon relabels it whole when what would be left is below
the minimum unit and nowhere as wide as the narrowest thing mapped (5 m): an outline traced from
pixels lies a pixel or two inside the real one all around, which is a third of a small house."""

AREA_DRIFT_MAX: Final[float] = 1e-6
"""Largest relative change of area a patch may make in its neighbourhood (design invariant)."""

CONFIRMATION_EVIDENCE: Final[float] = 3.0
"""Evidence that confirms: mean weighted probability × looks². Two good PVA looks (0.75 × 2²), or
three to four of a 10 m sensor, as OPERA DIST-ALERT asks for more than one look and lets evidence
grow with their square."""
PROVISIONAL_EVIDENCE: Final[float] = 1.0
"""Evidence of a provisional alert: a second look of any sensor that agrees."""
CLEAN_LOOKS_TO_CANCEL: Final[int] = 2
"""Consecutive clean looks that end an unconfirmed alert (OPERA DIST-ALERT: 2)."""
CANCELLED_DAYS: Final[int] = 60
"""Rest of an alert that clean looks cancelled: what looked changed once looks so again for weeks
(stubble, a flooded meadow), but a building may come to stand there the year after. What a person
rejected rests for good."""
CLEAN_VALID_SHARE: Final[float] = 0.8
"""A look is clean only where this part of the alert's ground was seen without cloud or shadow."""
CLEAN_CHANGED_SHARE: Final[float] = 0.2
"""Nor may more of that ground than this look changed; between the two a look says nothing."""
ALERT_SAME_GROUND_SHARE: Final[float] = 0.5
"""Two alerts of one kind are the same ground when they share this part of the smaller one."""

REJECTED_GROUND_SHARE: Final[float] = 0.25
"""A rejected alert holds down what lies on its ground to this part at least: outlines of one thing
differ between looks, a development four times as large is another thing."""

LEGAL_WEIGHT: Final[dict[str, float]] = {
    "artificialisation": 1.0,
    "desartificialisation": 0.8,
    "construction": 0.5,
    "demolition": 0.4,
    "clearing": 0.4,
    "other": 0.3,
}
"""Ranking weight by kind: a change of legal status is what subscribers must act on; a building or
a wood that comes or goes is what they will ask about next."""

MAX_PIXELS: Final[int] = 2_000_000_000
"""Largest image accepted: a 5 km BD ORTHO tile at 0.2 m is 625 Mpx; three times that is refused
as a mistake before any allocation."""
MAX_EVENT_BYTES: Final[int] = 1_000_000
"""Largest event read: a STAC Item is a few kB; Kafka's own default limit is 1 MB."""
MAX_BANDS: Final[int] = 32
"""More bands than any sensor here delivers."""
MAX_IMAGE_BYTES: Final[int] = 32 * 2**30
"""Largest image file opened: ``MAX_PIXELS`` in four bands of 16 bits, uncompressed, are 16 GB;
twice that leaves room for overviews and is a mistake beyond."""
MAX_PIXELS_PER_BYTE: Final[int] = 10_000
"""Pixels one byte on disk may stand for. A blank deflated tile takes a byte for some 300 pixels, a
sparse GeoTIFF without a tile one for 16 000: such a file declares pixels it does not hold."""
MAX_BLOCK_BYTES: Final[int] = 512 * 2**20
"""Largest block a reader must decode at once: a tile is a few MB, a strip of the widest image 1 MB;
an image in one strip would be decoded whole for each window."""
MAX_FOOTPRINT_VERTICES: Final[int] = 10_000
"""Vertices of an event's footprint: a scene's outline has tens, a mosaic's some hundreds."""
MAX_POLYGON_VERTICES: Final[int] = 2_000_000
"""Vertices of one polygon of a map: the road network of a département, its largest polygon, has
some hundred thousand."""
MAX_MAP_POLYGONS: Final[int] = 20_000_000
"""Polygons of one delivered map: the densest département has about two million."""
MAX_MAP_BYTES: Final[int] = 64 * 2**30
"""Largest map file opened: ``MAX_MAP_POLYGONS`` at the 1 to 2 kB a polygon takes in a
GeoPackage."""

FIRST_YEAR: Final[int] = 1900
LAST_YEAR: Final[int] = 2200
"""Years an image can be of: from the first aerial surveys to far beyond this program."""

SMALLEST_OBJECT_M2: Final = 50.0
"""Footprint from which a building is taken into the map: less changed ground is no object."""
CONTEXT_M: Final = 1000.0
"""Ground around an acquisition whose old image and map teach covers the acquisition itself may
lack (a quarry, a pond): a kilometre is the same soils, roofs and crops."""
CAMPAIGN_DAYS: Final[int] = 30
"""Images of one ground taken within this many days belong to one campaign: neither is the other's
reference, and the order they arrive in does not matter. A département is flown in weeks; the
shortest interval at which a change of the map is worth a comparison is longer."""
COMPARABLE_GSD_RATIO: Final[float] = 4.0
"""Pixels may differ by this factor for two images to be compared: 0.2 m with 0.5 m yes, 0.2 m
with 10 m no."""

NEIGHBOUR_RADIUS_M: Final[float] = 50.0
"""How far the planner looks for a built neighbour whose usage a new building inherits: the
distance the zone construite itself groups buildings by."""

_BUILT_USES: Final[frozenset[str]] = frozenset({"US2", "US3", "US5", "US235", "US4.2", "US4.3"})


CHANGE_PRIOR: Final[float] = 0.02
"""Share of ground expected to change its cover between two millésimes: 1 to 3 %."""

TREES: Final = "tree"
_GROUPS: Final[dict[str, str]] = {
    "CS1.1.1.1": "built",
    "CS1.1.1.2": "sealed",
    "CS1.1.2.1": "bare",
    "CS1.1.2.2": "bare",
    "CS1.2.1": "bare",
    "CS1.2.2": "water",
    "CS1.2.3": "snow",
    "CS2.1.1.1": TREES,
    "CS2.1.1.2": TREES,
    "CS2.1.1.3": TREES,
    "CS2.1.2": "shrub",
    "CS2.1.3": "vine",
    "CS2.2.1": "herb",
    "CS2.2.2": "herb",
}
_PLAUSIBLE: Final[dict[tuple[str, str], float]] = {
    # anything can be built on, sealed or stripped
    **{(g, k): 1.0 for g in ("herb", "vine", "shrub", "tree", "bare") for k in ("built", "sealed")},
    **{(g, "bare"): 1.0 for g in ("herb", "vine", "shrub", "tree")},
    # a clearing is quick, a wood is not: three years make no trees
    ("tree", "herb"): 1.0,
    ("tree", "shrub"): 0.2,
    ("shrub", "herb"): 0.4,
    ("shrub", "tree"): 0.05,
    ("herb", "tree"): 0.02,
    ("herb", "shrub"): 0.05,
    # demolition leaves ground or a lawn
    ("built", "herb"): 0.5,
    ("built", "bare"): 0.5,
    ("built", "sealed"): 0.5,
    ("sealed", "built"): 0.5,
    ("sealed", "herb"): 0.2,
    ("sealed", "bare"): 0.2,
    ("bare", "herb"): 0.4,
    ("bare", "water"): 0.3,
    # crops and ponds come and go
    ("herb", "vine"): 0.2,
    ("vine", "herb"): 0.4,
    ("herb", "water"): 0.3,
    ("water", "herb"): 0.2,
    ("water", "bare"): 0.3,
}
_IMPLAUSIBLE: Final[float] = 0.02
"""Any other change of group: it happens, but a model's error is far likelier."""


def cover_group(code_cs: str) -> str:
    """Covers an image cannot be trusted to tell apart on two dates: conifers do not turn into
    broadleaves between two flights, a model's mind does."""
    return _GROUPS[code_cs]


def transition_plausibility(from_cs: str, to_cs: str) -> float:
    """How plausible a change of cover is within one cycle of about three years, 0 to 1.

    A table of expert knowledge, not fitted to any image: it only says which confusions of a
    model are likelier than the change they would mean. 0 within a group.
    """
    a, b = _GROUPS[from_cs], _GROUPS[to_cs]
    return 0.0 if a == b else _PLAUSIBLE.get((a, b), _IMPLAUSIBLE)


def minimum_width(code_cs: str) -> float:
    """Narrowest ground of a cover that is mapped, metres; buildings have no minimum width."""
    if code_cs == BUILDING:
        return 0.0
    return WIDTH_NETWORK_M if code_cs == PAVED else WIDTH_OTHER_M


def minimum_unit(code_cs: str, *, inside_built_zone: bool) -> float:
    """Smallest area, m², a polygon of this cover may have (OCS GE specification)."""
    if code_cs == BUILDING:
        return MMU_BUILT_M2
    return MMU_INSIDE_M2 if inside_built_zone else MMU_OUTSIDE_M2


def new_usage(
    *, to_cs: str, from_us: str | None, neighbour_uses: frozenset[str] = frozenset()
) -> str:
    """Usage of a newly seen cover: what pixels cannot say, taken from the map around it.

    A usage already there and compatible stays. A building on farmland or woodland takes the
    built usage of a neighbour within reach, else ``US235`` (undifferentiated). Bare mineral
    ground continues an adjoining quarry (``US1.3``), else it is in transition (``US6.1``). A
    sealed surface takes the usage of built or road neighbours. Vegetation that replaces a
    building keeps the usage of its plot.
    """
    built_near = sorted(neighbour_uses & _BUILT_USES)
    if to_cs in {"CS1.1.1.1", "CS1.1.1.2"}:
        if from_us in _BUILT_USES or (from_us or "").startswith("US4"):
            return str(from_us)
        if to_cs == "CS1.1.1.2" and not built_near and "US4.1.1" in neighbour_uses:
            return "US4.1.1"
        return built_near[0] if len(built_near) == 1 else "US235"
    if to_cs in {"CS1.1.2.1", "CS1.1.2.2"}:
        return "US1.3" if "US1.3" in neighbour_uses else "US6.1"
    if to_cs in {"CS1.2.1", "CS1.2.2", "CS1.2.3"}:
        return "US6.3"
    if to_cs.startswith("CS2.1.1"):
        return "US1.2" if from_us in {"US1.1", "US1.2", "US6.3"} else (from_us or "US6.3")
    return from_us or "US6.6"


def nearest_class(code_cs: str, candidates: list[str]) -> str:
    """The candidate cover nearest to a code in the hierarchy; ties go to the first in order."""
    return min(candidates, key=lambda c: (class_distance(code_cs, c), c))
