"""Commands that measure."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.options import Device, Json
from daemon.output import bar, emit, show_figures


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    bench = typer.Typer(no_args_is_help=True, help="Measure how fast the rooms are.")
    bench.command("detect")(detect)
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
    from daemon.bench import bench_detect

    with bar("bench:") as progress:
        figures = bench_detect(
            size=size, detector=detector, device=device, seed=seed, progress=progress
        )
    if json_:
        emit(figures)
    else:
        show_figures("Detection", figures)
