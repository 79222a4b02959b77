"""An evaluation on paper: Markdown, JSON and plots of all detectors side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectors.evaluate import CAUSES


def write_report(reports: Sequence[dict[str, Any]], folder: Path) -> None:
    """``report.md``, ``report.json``, ``calibration.png`` and ``false-alarms.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(list(reports), indent=1, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(reports), encoding="utf-8")
    _plot_calibration(reports, folder / "calibration.png")
    _plot_causes(reports, folder / "false-alarms.png")


def markdown(reports: Sequence[dict[str, Any]]) -> str:
    """Tables: figures of each detector, false alarms by cause, F1 pair by pair."""
    lines = [
        "# Evaluation",
        "",
        "Micro figures of the change class; intervals by bootstrap (95 %).",
        "",
    ]
    lines += _table(
        [
            "detector",
            "pairs",
            "precision",
            "recall",
            "F1",
            "F1 interval",
            "IoU",
            "polygon precision",
            "polygon recall",
            "flagged where nothing changed",
            "Mpx/s",
        ],
        [
            [
                r["detector"],
                str(r["pairs"]),
                *(f"{r[k]:.3f}" for k in ("precision", "recall", "f1")),
                "{:.3f} to {:.3f}".format(*r["intervals"]["f1"]),
                f"{r['iou']:.3f}",
                f"{r['polygon_precision']:.3f}",
                f"{r['polygon_recall']:.3f}",
                _share(r["flagged_where_nothing_changed"]),
                f"{r['megapixels_per_second']:.2f}",
            ]
            for r in reports
        ],
    )
    lines += ["", "## False alarms by what the images show there (share of pixels)", ""]
    lines += _table(["detector", *CAUSES], [[r["detector"], *_shares(r)] for r in reports])
    lines += ["", "![false alarms](false-alarms.png)", "", "## Calibration", ""]
    lines += ["![calibration](calibration.png)", "", "## F1 pair by pair", ""]
    names = list(dict.fromkeys(p["pair"] for r in reports for p in r["per_pair"]))
    found = [{p["pair"]: p for p in r["per_pair"]} for r in reports]
    lines += _table(
        ["pair", "changed", *(r["detector"] for r in reports)],
        [
            [
                name,
                _share(next(f[name]["changed"] for f in found if name in f)),
                *(f"{f[name]['f1']:.2f}" if name in f else "–" for f in found),
            ]
            for name in names
        ],
    )
    return "\n".join(lines) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _shares(report: dict[str, Any]) -> list[str]:
    total = sum(report["false_alarms"].values())
    return [_share(report["false_alarms"][c] / total if total else None) for c in CAUSES]


def _plot_calibration(reports: Sequence[dict[str, Any]], path: Path) -> None:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for report in reports:
        points = [b for b in report["calibration"] if b["changed"] is not None]
        said, changed = ([b[k] for b in points] for k in ("said", "changed"))
        axes.plot(said, changed, marker="o", label=report["detector"])
    axes.set(xlabel="probability said", ylabel="share truly changed", xlim=(0, 1), ylim=(0, 1))
    _save(figure, axes, path)


def _plot_causes(reports: Sequence[dict[str, Any]], path: Path) -> None:
    figure, axes = _figure()
    left = [0.0] * len(reports)
    names = [r["detector"] for r in reports]
    for cause in CAUSES:
        pixels = [r["false_alarms"][cause] / 1e3 for r in reports]
        axes.barh(names, pixels, left=left, label=cause)
        left = [a + b for a, b in zip(left, pixels, strict=True)]
    axes.set_xlabel("falsely flagged, thousand pixels")
    _save(figure, axes, path)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, axes: Any, path: Path) -> None:  # noqa: ANN401 - matplotlib is untyped here
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
