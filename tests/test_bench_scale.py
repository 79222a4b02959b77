"""The bench of the roles: its processes can be configured, and a short run comes to figures."""

import pytest

from daemon.bench.scale import _settings, bench_scale
from daemon.config import load
from tests.integration.broker import available


def test_every_process_of_the_bench_is_configured_by_a_file_that_loads(tmp_path):
    topics = {"tasks": "t", "judgements": "j", "dead_letters": "d"}
    text = _settings(tmp_path / 'a "b".duckdb', "127.0.0.1:9", topics, "group", 8123, 40)
    (tmp_path / "m.toml").write_text(text)
    found = load(tmp_path / "m.toml")
    assert found.kafka.tasks == "t" and found.http.port == 8123 and found.asked_at_once > 40
    assert found.exchange_folder() == tmp_path / "exchange"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not available(), reason="noida-db is not installed")
def test_two_workers_draw_the_same_map_as_one():
    found = bench_scale(events=8)
    assert found["same_map"] and [run["events"] for run in found["runs"]] == [8, 8]
    assert all(run["valid"] and run["changed_polygons"] for run in found["runs"])
    assert found["speedup"] > 1.0
