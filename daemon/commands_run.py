"""Commands that run things: the service, the demo, detection, evaluation."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import typer

from daemon.options import Config, Device, Json
from daemon.output import bar, emit, show, show_figures
from schemas.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(demo)
    app.command()(run)
    app.command()(detect)
    app.command()(evaluate)


def demo(
    seed: Annotated[int, typer.Option(min=0, help="Seed of the landscape.")] = 1,
    workdir: Annotated[Path | None, typer.Option(help="Folder for everything it makes.")] = None,
    json_: Json = False,
) -> None:
    """Make a landscape, run the real service on it, show what changed and who was told.

    Example: millesimed demo --seed 3 --workdir demo-out
    """
    from daemon.demo.run import run_demo

    folder = workdir or Path(mkdtemp(prefix="millesimed-demo-"))
    with bar("demo:") as progress:
        report = run_demo(seed=seed, folder=folder, progress=progress)
    if json_:
        emit(report.figures)
        return
    show("What changed", report.changes)
    show("Who was told", report.told)
    show_figures("Demo", _flat(report.figures))
    typer.echo(f"Everything is in {folder}")


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def run(  # noqa: PLR0913, PLR0917 - each argument is a flag
    config: Config = None,
    role: Annotated[str, typer.Option(help="all or relay.")] = "all",
    once: Annotated[bool, typer.Option("--once", help="Stop when the source is drained.")] = False,
    db: Annotated[list[Path] | None, typer.Option(help="Store; may be repeated.")] = None,
    inbox: Annotated[Path | None, typer.Option(help="Folder of events.")] = None,
    outbox: Annotated[Path | None, typer.Option(help="Folder of published events.")] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    detector: Annotated[str | None, typer.Option(help="Detector; else chosen by the map.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    json_: Json = False,
) -> None:
    """Run the service: read events, patch the map, publish.

    Example: millesimed run --db D032.duckdb --inbox inbox --once
    """
    from daemon.config import KafkaSettings, load
    from daemon.service import Service, handled, relay_only

    settings = load(
        config,
        db=list(db) if db else None,
        inbox=inbox,
        outbox=outbox,
        detector=detector,
        device=device,
        kafka=KafkaSettings(servers=kafka) if kafka else None,
    )
    if role == "relay":
        emit({"published": relay_only(settings)})
        return
    if role != "all":
        raise UsageError(f"There is no role {role!r} here; use all or relay.")
    if not once:
        service = Service(settings)
        service.run()
    else:
        with bar("run:") as progress:
            service = Service(settings, once=True, progress=progress)
            service.run()
    if json_:
        emit(handled(service))
    elif once:
        show_figures("Events", handled(service))


def detect(
    before: Annotated[Path, typer.Argument(help="Image before.")],
    after: Annotated[Path, typer.Argument(help="Image after.")],
    out: Annotated[Path, typer.Option(help="Folder for change.tif and regions.gpkg.")],
    detector: Annotated[str | None, typer.Option(help="Detector; else chosen by --map.")] = None,
    map_: Annotated[Path | None, typer.Option("--map", help="Previous map (vector).")] = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Detect change between two images.

    Example: millesimed detect before.tif after.tif --map map.gpkg --out found
    """
    from daemon.detect_pair import detect_pair

    with bar("detect:") as progress:
        figures = detect_pair(
            before,
            after,
            out=out,
            detector=detector,
            map_path=map_,
            device=device,
            progress=progress,
        )
    if json_:
        emit(figures)
    else:
        show_figures("Detection", figures)


def evaluate(
    pairs_dir: Annotated[Path, typer.Argument(help="Folder of pairs with truth.")],
    detector: Annotated[str | None, typer.Option(help="Detector; else chosen per pair.")] = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Score a detector on pairs whose change is known.

    Example: millesimed evaluate pairs --detector irmad --json
    """
    from detectors.engine import choose_device
    from detectors.evaluate import evaluate as score

    with bar("evaluate:") as progress:
        report = score(
            pairs_dir, detector=detector, device=choose_device(device), progress=progress
        )
    if json_:
        emit(report)
        return
    show("Pairs", report["per_pair"])
    show_figures("Evaluation", {k: v for k, v in report.items() if k != "per_pair"})
