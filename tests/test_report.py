"""The report: figures that add up, intervals, causes, plots that exist."""

import json

import numpy as np
import pytest
from PIL import Image

from detectors.evaluate import Judged, Tally, bootstrap, causes, reliability, report
from detectors.report import write_report


def judged(name, detector="cva", tp=10, fp=5, fn=5):
    probability = np.linspace(0, 255, 100).reshape(10, 10).astype(np.uint8)
    truth = probability > 200
    return Judged(
        name=name,
        detector=detector,
        tally=Tally(tp=tp, fp=fp, fn=fn),
        flagged=0.5,
        changed=float(truth.mean()),
        megapixels=1.0,
        seconds=2.0,
        reliability=reliability(probability, truth),
        causes={"shadow": fp, "other": 1},
    )


def test_figures_are_micro_sums():
    made = report([judged("a"), judged("b", tp=0, fp=20, fn=0)], skipped=1, detector="cva")
    assert made["precision"] == pytest.approx(10 / 35) and made["recall"] == pytest.approx(10 / 15)
    assert made["f1"] == pytest.approx(20 / (20 + 25 + 5)) and made["skipped"] == 1
    low, high = made["intervals"]["f1"]
    assert 0 <= low <= made["f1"] <= high <= 1
    assert made["megapixels_per_second"] == pytest.approx(0.5)
    assert sum(b["pixels"] for b in made["calibration"]) == 200
    assert made["calibration"][-1]["changed"] == 1.0 and made["calibration"][0]["changed"] == 0.0


def test_more_pairs_narrow_the_interval():
    rng = np.random.default_rng(0)
    tallies = [Tally(tp=int(t), fp=int(f), fn=5) for t, f in rng.integers(1, 40, (60, 2))]
    few, many = (np.ptp(bootstrap(tallies[:n])["f1"]) for n in (6, 60))
    assert many < few


def test_causes_are_told_apart_and_counted_once():
    before = np.full((3, 8, 8), 120.0, np.float32)
    after = before.copy()
    after[:, 0] = 30  # shadow
    after[1, 1] = 190  # vegetation
    after[:, 2] = 200  # brightness
    kept = np.zeros((8, 8), bool)
    kept[3] = True
    wrong = np.zeros((8, 8), bool)
    wrong[:5] = True
    assert causes(wrong, before, after, kept=kept) == {
        "unchanged building": 8,
        "shadow": 8,
        "vegetation": 8,
        "brightness": 8,
        "other": 8,
    }


def test_the_report_is_readable_and_has_its_plots(tmp_path):
    reports = [
        report([judged("a", d), judged("b", d)], skipped=0, detector=d) for d in ("cva", "irmad")
    ]
    write_report(reports, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| cva | 2 |" in text and "| irmad | 2 |" in text and "| a |" in text
    assert json.loads((tmp_path / "report.json").read_text())[0]["detector"] == "cva"
    for name in ("calibration.png", "false-alarms.png"):
        assert f"({name})" in text
        with Image.open(tmp_path / name) as picture:
            assert len(set(picture.convert("L").getdata())) > 10
