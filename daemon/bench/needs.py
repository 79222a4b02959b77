"""What a whole country needs, from what one core, one card and one writer were measured to do.

Pure arithmetic. Rates come from areas, pixels and the calendar; a rate over what one unit does,
over the share of a unit that is planned with, is a number of units. Every assumption that is not a
measurement stands here with its reason, and ``millesimed bench capacity`` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

from schemas.policy import Sensor

DAY: Final = 86_400.0
YEAR_DAYS: Final = 365.25
PLANNED: Final = 0.7
"""Share of a unit that is planned with: the rest is for retries, upgrades and worse days."""
DEPARTEMENTS: Final = 100
"""Stores of the country, near enough: 96 in Europe and five overseas."""
PARTITIONS_PER_WORKER: Final = 3
"""Partitions for each detect worker, so that keys spread evenly and a worker may be added."""

Resource = Literal["core", "card", "writer"]


@dataclass(frozen=True, slots=True)
class Costs:
    """What one unit was measured to do. A pixel of a pair is counted once, though two are read."""

    decode_mpx: float
    """Megapixels a second one core decodes, JPEG 2000 as BD ORTHO is delivered."""
    prepare_mpx: float
    """Megapixels a second of a pair one core registers, matches, masks and draws as polygons."""
    judge_mpx: float
    """Megapixels a second of a pair one card (or one machine without) judges."""
    judged_on: str
    """What that was: ``cpu`` or the name of a card."""
    series_mpx: float
    """Megapixels a second one core takes into their Sentinel-2 histories."""
    events: float
    """Events a second one update process carries from the broker to the commit, without pixels."""
    changes: float
    """Changed polygons a second one update process plans and commits."""
    event_cores: float
    """Cores that one event a second takes of all processes: update, hand-over, detect, relay."""
    change_cores: float
    """Likewise a changed polygon a second."""
    base_cores: float
    """Cores the processes take while nothing comes."""
    store_cores: float
    """What each open store adds to that: rounds of the relay, looks of the watch."""
    change_bytes: float
    """What a changed polygon adds to its store."""
    event_bytes: float
    """What an event adds to its store, changes apart."""
    message_bytes: float
    """What an event puts on all topics: itself, its task, its judgement."""
    change_message_bytes: float
    """What a changed polygon adds to that: its part of a change, its alert."""
    state_bytes: float
    """What a pixel's history takes on disk."""


@dataclass(frozen=True, slots=True)
class Programme:
    """Acquisitions of one kind over one country."""

    name: str
    sensor: Sensor
    area_km2: float
    gsd_m: float
    scene_km2: float
    """Ground of one event."""
    every_days: float
    """Between two looks at the same ground."""
    delivery_km2: float
    """Ground that arrives at once."""
    done_in_days: float
    """How long after its arrival a delivery is to be done."""
    changes_per_km2: float
    """Polygons that one look patches."""
    bytes_per_pixel: float
    """Of the files as delivered."""

    @property
    def pixels_per_km2(self) -> float:
        """Pixels of one date."""
        return 1e6 / self.gsd_m**2


def france(
    area_km2: float = 550_000.0, departements: int = DEPARTEMENTS
) -> tuple[Programme, Programme]:
    """The two programmes of the country: aerial campaigns and Sentinel-2.

    A campaign's département is done in a day: the millésime then is as late as its images are and
    no later. Half a million artificialised and otherwise changed polygons a year are the order of
    magnitude of 20 000 ha a year in pieces of a few hundred m²; three years of them over the area
    give three per km2. BD ORTHO's JPEG 2000 takes about a tenth of its 3 bytes a pixel. A day of
    Sentinel-2 shows the orbits of that day, a third of the country at most, and its files take
    some 20 bytes a pixel of 10 m over all bands (800 MB for 10 980 pixels squared).
    """
    aerial = Programme(
        name="aerial",
        sensor=Sensor.PVA,
        area_km2=area_km2,
        gsd_m=0.2,
        scene_km2=1.0,
        every_days=3 * YEAR_DAYS,
        delivery_km2=area_km2 / departements,
        done_in_days=1.0,
        changes_per_km2=3.0,
        bytes_per_pixel=0.3,
    )
    sentinel2 = Programme(
        name="sentinel-2",
        sensor=Sensor.SENTINEL_2,
        area_km2=area_km2,
        gsd_m=10.0,
        scene_km2=area_km2 / departements,  # cut to the stores it is announced to
        every_days=5.0,
        delivery_km2=area_km2 / 3,
        done_in_days=1.0,
        changes_per_km2=0.0,
        bytes_per_pixel=6.6,
    )
    return aerial, sentinel2


@dataclass(frozen=True, slots=True)
class Need:
    """One stage of one programme: rates a second, and how many units they take."""

    programme: str
    stage: str
    unit: str
    resource: Resource
    mean: float
    burst: float
    one_does: float

    def units(self, rate: float) -> float:
        """Units that carry a rate, at the share of each that is planned with."""
        return rate / (self.one_does * PLANNED)


@dataclass(frozen=True, slots=True)
class Machine:
    """What one machine has."""

    cores: int
    cards: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What everything together needs. Counts are whole units of a burst; ``mean`` are shares."""

    needs: Sequence[Need]
    cores: int
    cards: int
    writers: int
    partitions: int
    mean: dict[str, float]
    read_bytes_per_second: float
    bytes_per_year: dict[str, float]
    bottleneck: str
    bottleneck_share: float


def needs(programme: Programme, costs: Costs) -> list[Need]:
    """The stages of a programme, each with its mean rate and that of a delivery."""
    mean = programme.area_km2 / (programme.every_days * DAY)
    burst = max(mean, programme.delivery_km2 / (programme.done_in_days * DAY))
    pixels = programme.pixels_per_km2 / 1e6

    def need(stage: str, unit: str, resource: Resource, per_km2: float, one: float) -> Need:
        return Need(programme.name, stage, unit, resource, mean * per_km2, burst * per_km2, one)

    scenes = 1 / programme.scene_km2
    found = [
        need("event", "events", "writer", scenes, costs.events),
        need("carry", "events", "core", scenes, 1 / costs.event_cores),
    ]
    if programme.sensor is Sensor.SENTINEL_2:
        found.append(need("observe", "Mpx", "core", pixels, costs.series_mpx))
    else:
        found += [
            need("decode", "Mpx", "core", 2 * pixels, costs.decode_mpx),
            need("prepare", "Mpx", "core", pixels, costs.prepare_mpx),
            need("judge", "Mpx", "card", pixels, costs.judge_mpx),
        ]
    if programme.changes_per_km2:
        changed = programme.changes_per_km2
        found += [
            need("patch", "polygons", "writer", changed, costs.changes),
            need("draw", "polygons", "core", changed, 1 / costs.change_cores),
        ]
    return found


def plan(
    programmes: Sequence[Programme], costs: Costs, machine: Machine, *, stores: int = DEPARTEMENTS
) -> Plan:
    """Units for every delivery at once, and the stage that would fill a machine first.

    Processes run and stores are open all the time, which takes cores though nothing comes. A store
    has one writer, and a delivery of aerial images is one département: its patches are not shared
    out, so writers are those of the stores that receive at once. The bottleneck is the stage whose
    units in a burst are the largest part of what the machine has (of a writer: of one).
    """
    found = [need for programme in programmes for need in needs(programme, costs)]
    have = {"core": machine.cores, "card": max(1, machine.cards), "writer": 1}
    at_rest = costs.base_cores + stores * costs.store_cores
    burst: dict[str, float] = {"core": at_rest, "card": 0.0, "writer": 0.0}
    mean = dict(burst)
    for need in found:
        burst[need.resource] += need.units(need.burst)
        mean[need.resource] += need.units(need.mean)
    tightest = max(found, key=lambda n: n.units(n.burst) / have[n.resource])
    cards = ceil(burst["card"])
    return Plan(
        needs=found,
        cores=ceil(burst["core"]),
        cards=cards,
        writers=ceil(burst["writer"]),
        partitions=PARTITIONS_PER_WORKER * max(cards, ceil(burst["writer"]), 4),
        mean=mean,
        read_bytes_per_second=sum(_read(programme) for programme in programmes),
        bytes_per_year=_bytes(programmes, costs),
        bottleneck=f"{tightest.programme} {tightest.stage}",
        bottleneck_share=tightest.units(tightest.burst) / have[tightest.resource],
    )


def _read(programme: Programme) -> float:
    """Bytes a second a delivery is read at; both dates of a pair."""
    dates = 1 if programme.sensor is Sensor.SENTINEL_2 else 2
    rate = programme.delivery_km2 / (programme.done_in_days * DAY)
    return rate * programme.pixels_per_km2 * programme.bytes_per_pixel * dates


def _bytes(programmes: Sequence[Programme], costs: Costs) -> dict[str, float]:
    """Bytes that a year brings, by what they are; histories are kept once and written over."""
    found = {"images": 0.0, "stores": 0.0, "topics": 0.0, "histories": 0.0}
    for programme in programmes:
        looked = programme.area_km2 * YEAR_DAYS / programme.every_days
        scenes = looked / programme.scene_km2
        found["images"] += looked * programme.pixels_per_km2 * programme.bytes_per_pixel
        found["stores"] += looked * programme.changes_per_km2 * costs.change_bytes
        found["stores"] += scenes * costs.event_bytes
        found["topics"] += scenes * costs.message_bytes
        found["topics"] += looked * programme.changes_per_km2 * costs.change_message_bytes
        if programme.sensor is Sensor.SENTINEL_2:
            pixels = programme.area_km2 * programme.pixels_per_km2
            found["histories"] += pixels * costs.state_bytes
    return found


@dataclass(frozen=True, slots=True)
class Load:
    """Work that was or is to be done at once: events and changes over stores that so many writers
    share; ``largest_share``: of the events, those of the busiest writer."""

    events: int
    changes: int
    stores: int
    writers: int
    largest_share: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds a load takes, by the resource that would take longest, and what each would take."""

    seconds: float
    bottleneck: Resource
    by_resource: dict[Resource, float]


def predict(load: Load, costs: Costs, machine: Machine) -> Prediction:
    """How long a load takes at full load: nothing is left free, unlike in a plan. What processes
    and stores take at rest is taken off the cores first, and of each writer its stores' part.

    Raises:
        ValueError: that is all there is.
    """
    cores = machine.cores - costs.base_cores - load.stores * costs.store_cores
    writer = 1 - load.stores / load.writers * costs.store_cores
    if min(cores, writer) <= 0:
        raise ValueError("Open stores and idle processes take every core; nothing is left to work.")
    carried = load.events / costs.events + load.changes / costs.changes
    taken = load.events * costs.event_cores + load.changes * costs.change_cores
    found: dict[Resource, float] = {
        "writer": load.largest_share * carried / writer,
        "core": taken / cores,
    }
    bottleneck = max(found, key=lambda resource: found[resource])
    return Prediction(found[bottleneck], bottleneck, found)
