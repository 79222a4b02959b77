"""Commands that measure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.options import Device, Json
from daemon.output import bar, emit, show, show_figures


class From(StrEnum):
    """Where the events of a bench come from."""

    INBOX = "inbox"
    KAFKA = "kafka"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    bench = typer.Typer(no_args_is_help=True, help="Measure how fast the rooms are.")
    bench.command("detect")(detect)
    bench.command("device")(device_)
    bench.command("patch")(patch)
    bench.command("alerts")(alerts_)
    bench.command("service")(service)
    bench.command("scale")(scale)
    bench.command("http")(http)
    bench.command("capacity")(capacity)
    app.add_typer(bench, name="bench")


def detect(
    size: Annotated[int, typer.Option(min=256, help="Side of the images, pixels.")] = 4096,
    detector: Annotated[str, typer.Option(help="Detector that needs no map.")] = "siamese",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the images.")] = 0,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Time decoding alone, judging alone and both together on images the bench makes.

    Example: millesimed bench detect --size 20000 --detector irmad --json
    """
    from daemon.bench.detect import bench_detect

    with bar("bench:") as progress:
        figures = bench_detect(
            size=size, detector=detector, device=device, seed=seed, progress=progress
        )
    if json_:
        emit(figures)
    else:
        show_figures("Detection", figures)


def device_(
    size: Annotated[int, typer.Option(min=64, help="Side of a tile, pixels.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Tiles judged at once.")] = 4,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Time detectors on tiles that lie in the device's memory, against the roof measured there.

    Example: millesimed bench device --device cuda --size 1024 --batch 16 --json
    """
    from daemon.bench.device import bench_device

    with bar("bench:") as progress:
        figures = bench_device(device=device, size=size, batch=batch, progress=progress)
    if json_:
        emit(figures)
    else:
        show(f"Detectors on {figures['device']}", figures["cases"])


def patch(
    sizes: Annotated[
        list[int], typer.Option("--size", min=400, help="Polygons of a map; may be repeated.")
    ] = [10_000, 100_000, 1_000_000],  # noqa: B006 - typer copies it
    events: Annotated[int, typer.Option(min=1, help="Acquisitions patched into each.")] = 12,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the maps.")] = 0,
    json_: Json = False,
) -> None:
    """Time import and patching on maps the bench makes, and the same by overlaying the whole map.

    Example: millesimed bench patch --size 10000 --size 1000000 --json
    """
    from daemon.bench.patch import bench_patch

    with bar("bench:") as progress:
        figures = bench_patch(sizes=sizes, events=events, seed=seed, progress=progress)
    if json_:
        emit(figures)
    else:
        show("Patching", figures["sizes"])


def service(
    events: Annotated[int, typer.Option(min=20, help="Acquisitions to send.")] = 10_000,
    soak: Annotated[
        float, typer.Option(min=0, help="Send for so many minutes instead; 0 counts events.")
    ] = 0.0,
    rate: Annotated[
        float | None,
        typer.Option(min=0.01, help="Events per second in the mean; else 0.6 of what it manages."),
    ] = None,
    source: Annotated[From, typer.Option(help="Inbox folder, or a broker process.")] = From.INBOX,
    polygons: Annotated[int, typer.Option(min=400, help="Polygons of the map.")] = 2_500,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the map and the sites.")] = 0,
    json_: Json = False,
) -> None:
    """Send small acquisitions in bursts through a real service and account for every one.

    Example: millesimed bench service --soak 30 --rate 2 --json
    """
    from daemon.bench.service import bench_service

    with bar("bench:") as progress:
        figures = bench_service(
            events=events,
            soak_minutes=soak,
            rate=rate,
            source=source.value,
            polygons=polygons,
            seed=seed,
            progress=progress,
        )
    if json_:
        emit(figures)
    else:
        show("Parts of the run", figures.pop("parts"))
        figures.pop("samples")
        show_figures("Service", figures)
    if not (figures["accounted_for"] and figures["valid"]):
        raise typer.Exit(1)


def alerts_(
    seeds: Annotated[
        list[int], typer.Option("--seed", min=0, help="Seed of a landscape; may be repeated.")
    ] = [101],  # noqa: B006 - typer copies it
    json_: Json = False,
) -> None:
    """Send two made-up years of Sentinel-2 through the service, and hold its alerts against what
    was planted.

    Example: millesimed bench alerts --seed 101 --seed 102 --json
    """
    from daemon.bench.alerts import bench_alerts

    with bar("bench:") as progress:
        runs = [bench_alerts(seed=seed, progress=progress) for seed in seeds]
    if json_:
        emit({"runs": runs})
        return
    for run in runs:
        show(f"Alerts, seed {run['seed']}", run["states"])
        plain = {k: v for k, v in run.items() if k not in {"states", "recall_by_kind"}}
        show_figures("Against the truth", plain)


def scale(
    events: Annotated[int, typer.Option(min=8, help="Acquisitions measured.")] = 48,
    workers: Annotated[
        list[int], typer.Option(min=1, help="Detect processes; once for each run.")
    ] = [1, 2],  # noqa: B006 - typer copies it
    seed: Annotated[int, typer.Option(min=0, help="Seed of map and images.")] = 0,
    json_: Json = False,
) -> None:
    """Time the service split into roles, with one and with several detect processes.

    Example: millesimed bench scale --events 48 --json
    """
    from daemon.bench.scale import bench_scale

    with bar("bench:") as progress:
        figures = bench_scale(events=events, workers=workers, seed=seed, progress=progress)
    if json_:
        emit(figures)
        return
    taken = [
        {f"core_seconds_{k}": v for k, v in run.pop("core_seconds").items()}
        for run in figures["runs"]
    ]
    show("Detect processes", [run | more for run, more in zip(figures["runs"], taken, strict=True)])
    show_figures("Scale", {k: v for k, v in figures.items() if k != "runs"})


def http(
    polygons: Annotated[int, typer.Option(min=400, help="Polygons of the map.")] = 100_000,
    clients: Annotated[int, typer.Option(min=1, max=500, help="Clients at a time.")] = 50,
    seconds: Annotated[float, typer.Option(min=1, help="How long they ask.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the map and the walks.")] = 0,
    json_: Json = False,
) -> None:
    """Time the tiles and the first paint of the map page over a store the bench makes.

    Example: millesimed bench http --polygons 100000 --clients 50 --json
    """
    from daemon.bench.http import bench_http

    with bar("bench:") as progress:
        figures = bench_http(
            polygons=polygons, clients=clients, seconds=seconds, seed=seed, progress=progress
        )
    if json_:
        emit(figures)
    else:
        show(
            "Tiles",
            [
                {"phase": phase, "tiles": kind, **row}
                for phase in ("cold", "load")
                for kind, row in figures[phase]["tiles"].items()
            ],
        )
        show_figures("Page", figures["page"])


def capacity(  # noqa: PLR0913, PLR0917 - each argument is a flag
    departements: Annotated[
        int, typer.Option(min=1, max=100, help="Stores of the simulated run.")
    ] = 100,
    events: Annotated[int, typer.Option(min=1, max=400, help="Acquisitions of each.")] = 25,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Update processes; else one for each core.")
    ] = None,
    costs: Annotated[
        Path | None,
        typer.Option(help="File of costs measured elsewhere or before; the others are measured."),
    ] = None,
    measure_only: Annotated[
        bool, typer.Option("--measure-only", help="Measure the costs, plan and simulate nothing.")
    ] = False,
    size: Annotated[int, typer.Option(min=256, help="Side of the images measured, pixels.")] = 2048,
    scenes: Annotated[
        int, typer.Option(min=4, max=400, help="Events the service's costs are measured with.")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of maps, images and changes.")] = 0,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Measure what one core, card, writer and store do, say what the whole of France needs, and
    hold the arithmetic against a simulated run of its départements.

    Example: millesimed bench capacity --departements 100 --events 25 --json
    """
    from daemon.bench.capacity import bench_capacity, bench_costs
    from daemon.bench.costs import Effort, read_costs

    effort = Effort(device, seed, size, scenes, read_costs(costs) if costs else {})
    with bar("bench:") as progress:
        if measure_only:
            figures = bench_costs(effort, progress=progress)
        else:
            figures = bench_capacity(
                effort,
                departements=departements,
                events=events,
                writers=processes,
                progress=progress,
            )
    if json_:
        emit(figures)
    else:
        _show_capacity(figures)
    if not measure_only and not figures["simulation"]["account"]["accounted_for"]:
        raise typer.Exit(1)


def _show_capacity(figures: dict[str, Any]) -> None:
    """Costs, and where there is a plan what it assumes, each stage, the whole, and the run."""
    show_figures("What one unit does", figures["costs"])
    if "plan" not in figures:
        return
    assumed, plan = figures["assumptions"], figures["plan"]
    programmes = assumed.pop("programmes")
    rows = zip(
        *([{"what": k, p["name"]: v} for k, v in p.items()] for p in programmes), strict=True
    )
    show("What is assumed", [left | right for left, right in rows])
    show_figures("And of both", assumed)
    show("Stages", plan.pop("needs"))
    show_figures("The whole country", plan)
    show_figures("Against a simulated run", figures["simulation"])
