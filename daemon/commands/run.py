"""Commands that run things: the service, the demo, detection, evaluation."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer

from daemon.options import Config, Device, Json, Weights
from daemon.output import bar, emit, show, show_figures
from schemas.errors import UsageError


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(demo)
    app.command()(run)
    app.command()(detect)
    app.command()(evaluate)
    app.command()(train)


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
    show_figures("Demo", report.figures)
    typer.echo(f"Everything is in {folder}")


def run(  # noqa: PLR0913, PLR0917 - each argument is a flag
    config: Config = None,
    role: Annotated[str, typer.Option(help="all, detect, update or relay.")] = "all",
    once: Annotated[bool, typer.Option("--once", help="Stop when the source is drained.")] = False,
    db: Annotated[list[Path] | None, typer.Option(help="Store; may be repeated.")] = None,
    inbox: Annotated[Path | None, typer.Option(help="Folder of events.")] = None,
    outbox: Annotated[Path | None, typer.Option(help="Folder of published events.")] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    detector: Annotated[str | None, typer.Option(help="Detector; else chosen by the map.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    json_: Json = False,
) -> None:
    """Run the service: read events, patch the map, publish. Over Kafka it can be split: one
    `update` for each set of stores, any number of `detect`; `relay` is for stores at rest.

    Example: millesimed run --db D032.duckdb --inbox inbox --once
    """
    from daemon.config import KafkaSettings, load
    from daemon.roles import DetectService, RelayService, UpdateService, updated
    from daemon.service import Service, handled

    settings = load(
        config,
        db=list(db) if db else None,
        inbox=inbox,
        outbox=outbox,
        detector=detector,
        device=device,
        kafka=KafkaSettings(servers=kafka) if kafka else None,
    )
    kinds: dict[str, type[Service]] = {
        "all": Service,
        "update": UpdateService,
        "detect": DetectService,
        "relay": RelayService,
    }
    if role not in kinds:
        raise UsageError(f"There is no role {role!r}; use {', '.join(kinds)}.")
    if not once:
        service = kinds[role](settings)
        service.run()
    else:
        with bar("run:") as progress:
            service = kinds[role](settings, once=True, progress=progress)
            service.run()
    if isinstance(service, RelayService):
        emit({"published": service.published})
        return
    figures = handled(service) if role == "all" else updated(service)
    if json_:
        emit(figures)
    elif once:
        show_figures("Events", figures)


def detect(  # noqa: PLR0913, PLR0917 - each argument is a flag
    before: Annotated[Path, typer.Argument(help="Image before.")],
    after: Annotated[Path, typer.Argument(help="Image after.")],
    out: Annotated[Path, typer.Option(help="Folder for change.tif and regions.gpkg.")],
    detector: Annotated[str | None, typer.Option(help="Detector; else chosen by --map.")] = None,
    map_: Annotated[Path | None, typer.Option("--map", help="Previous map (vector).")] = None,
    weights: Weights = None,
    elevation: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Surface models (MNS) of both dates.")
    ] = None,
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
            weights=weights,
            elevation=elevation,
            device=device,
            progress=progress,
        )
    if json_:
        emit(figures)
    else:
        show_figures("Detection", figures)


def evaluate(
    pairs_dir: Annotated[Path, typer.Argument(help="Folder of pairs with truth.")],
    detector: Annotated[
        str | None, typer.Option(help="Detector, `all` for a comparison; else chosen per pair.")
    ] = None,
    weights: Weights = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the report and its plots.")] = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Score a detector on pairs whose change is known; with --out, a report of all that ran.

    Example: millesimed evaluate pairs --detector all --out report
    """
    from detectors.engine import choose_device
    from detectors.evaluate import evaluate as score
    from detectors.registry import DETECTORS
    from detectors.report import write_report

    names: list[str | None] = list(DETECTORS) if detector == "all" else [detector]
    reports = []
    with bar("evaluate:") as progress:
        for name in names:
            own = weights if name == "siamese" else None
            reports.append(
                score(
                    pairs_dir,
                    detector=name,
                    weights=own if detector == "all" else weights,
                    device=choose_device(device),
                    progress=progress,
                )
            )
    if out is not None:
        write_report(reports, out)
    if json_:
        emit(reports[0] if len(reports) == 1 else {"reports": reports})
        return
    for report in reports:
        show(f"Pairs ({report['detector']})", report["per_pair"])
        plain = {k: v for k, v in report.items() if not isinstance(v, list | dict)}
        show_figures(f"Evaluation ({report['detector']})", plain)


def train(  # noqa: PLR0913, PLR0917 - each argument is a flag
    out: Annotated[Path, typer.Option(help="Folder for weights, card and the run's state.")],
    db: Annotated[
        Path | None, typer.Option("--db", help="Store whose map and reference images teach.")
    ] = None,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Made-up pairs teach instead of a store.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    start_from: Annotated[
        Path | None, typer.Option(help="Weights to start from; else the package's own.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most so many epochs.")] = 30,
    steps: Annotated[int, typer.Option(min=1, help="Batches in an epoch.")] = 100,
    batch: Annotated[int, typer.Option(min=1, help="Pairs in a batch.")] = 6,
    size: Annotated[int, typer.Option(min=64, help="Side of a training pair, pixels.")] = 256,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw examples.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")] = 0,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Train the siamese detector on a store's millésime, or on made-up pairs.

    Example: millesimed train --db D032.duckdb --out weights --epochs 10
    """
    from daemon.train import run_training
    from detectors.training import Plan

    if synthetic == (db is not None):
        raise UsageError("Say what teaches: --db FILE or --synthetic, one of them.")
    plan = Plan(epochs=epochs, steps=steps, batch=batch, size=size, seed=seed, workers=workers)
    with bar("train:") as progress:
        figures = run_training(
            db=db,
            out=out,
            plan=plan,
            resume=resume,
            start_from=start_from,
            device=device,
            progress=progress,
        )
    if json_:
        emit(figures)
    else:
        show_figures("Training", figures)
