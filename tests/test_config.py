"""Configuration: file, environment, flags, in that order; every key documented."""

from pathlib import Path

import pytest

from daemon.config import HttpSettings, KafkaSettings, Settings, load
from schemas.errors import UsageError


def test_flags_win_over_environment_and_environment_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "m.toml"
    file.write_text('db = "a.duckdb"\ndevice = "cpu"\nbatch = 2\ntile_size = 256\n')
    monkeypatch.setenv("MILLESIMED_BATCH", "8")
    found = load(file, tile_size=1024, device=None)
    assert found.db == [tmp_path / "a.duckdb"]
    assert (found.device, found.batch, found.tile_size) == ("cpu", 8, 1024)
    assert found.inbox_folder() == tmp_path / "inbox"


def test_nested_keys_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MILLESIMED_KAFKA__SERVERS", "127.0.0.1:9092")
    assert load().kafka == KafkaSettings(servers="127.0.0.1:9092")


@pytest.mark.parametrize("text", ["colour = 1", "batch = 0", "= broken", '[kafka]\ngroup = "x"'])
def test_a_bad_file_is_wrong_use_naming_the_key(tmp_path, text):
    file = tmp_path / "m.toml"
    file.write_text(text)
    with pytest.raises(UsageError):
        load(file)
    with pytest.raises(UsageError, match="no configuration file"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize("model", [Settings, KafkaSettings, HttpSettings])
def test_every_key_says_what_it_is(model):
    for name, field in model.model_fields.items():
        assert field.description or name in {"http"}, name


def test_the_deployed_file_loads():
    found = load(Path(__file__).parent.parent / "deploy" / "millesimed.toml")
    assert found.kafka is not None and found.db == [Path("/data/D032.duckdb")]
