"""The service bench really sends, really patches, and accounts for every message."""

import pytest

from daemon.bench.broker import available
from daemon.bench.service import bench_service
from daemon.bench.watch import Sample, figures


@pytest.mark.timeout(900)  # four processes that import torch, on a machine that may be busy
@pytest.mark.parametrize(
    "source",
    [
        "inbox",
        pytest.param(
            "kafka",
            marks=[
                pytest.mark.kafka,
                pytest.mark.skipif(not available(), reason="noida-db is not installed"),
            ],
        ),
    ],
)
def test_every_message_is_accounted_for(source, monkeypatch):
    monkeypatch.setattr("daemon.bench.service.WARM", 20)
    made = bench_service(events=60, source=source, polygons=400)
    assert made["sent"]["events"] == 80 and made["sent"]["again"] and made["sent"]["poison"]
    assert made["accounted_for"] and made["lost"] == 0 and made["unpublished"] == 0
    assert made["valid"] and made["alerts"] > 5 and made["versions"] > 400
    assert len(made["parts"]) == 10 and made["messages"] == sum(
        p["messages"] for p in made["parts"]
    )
    assert all(0 < p["p50_ms"] <= p["p95_ms"] <= p["p99_ms"] for p in made["parts"])
    assert made["peak_rss_mb"] > 100 and made["parts"][-1]["handles"] > 5


def test_growth_is_told_from_the_tenths():
    samples = [
        Sample(
            at=float(n),
            handled=100 + n,
            waiting=n % 7,
            waited=n % 5 / 2,
            rss=10**8 + n * 10**6,
            handles=20,
            store_bytes=1,
            wal_bytes=2,
        )
        for n in range(101)
    ]
    made = figures(samples, [0.01] * 50 + [0.02] * 50, 100)
    assert made["latency_growth"] == 2.0 and made["rss_growth_mb"] == 80.0
    assert made["peak_waiting"] == 6 and made["peak_waited_s"] == 2.0
    assert made["handles_growth"] == 0 and made["messages_per_second"] == 1.0
