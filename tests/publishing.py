"""The command that publishes, called against a platform on loopback; what is expected there."""

import json

import pytest
import shapely
from typer.testing import CliRunner

from daemon.cli import app
from daemon.publish.token import PublishError
from tests.entrepot import TOKEN, configuration, platform
from tests.map_store import building, made_store, patched
from updater.deliveries import TABLE, frame_at
from updater.reads import end_of
from updater.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store with a patch, as it lies on a disk."""
    path = tmp_path_factory.mktemp("made") / "D032.duckdb"
    store, _ = made_store(path, seed=11)
    patched(store, 1, [building(120, 150), building(420, 300)])
    store.close()
    return path.read_bytes()


@pytest.fixture
def db(tmp_path, made):
    path = tmp_path / "D032.duckdb"
    path.write_bytes(made)
    return path


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.setenv("MILLESIMED_PUBLICATION_TOKEN", TOKEN)
    monkeypatch.setattr("daemon.publish.http.FIRST_WAIT", 0.001)
    with platform(tmp_path / "platform") as found:
        yield found


class Publish:
    """Calls of the command in this process."""

    def __init__(self, config, db):
        self.config, self.db, self.said = config, db, ""

    def run(self, *more, millesime=2024):
        result = CliRunner().invoke(app, self.words(*more, millesime=millesime))
        self.said += f"{result.output}{result.exception or ''}"
        return result

    def words(self, *more, millesime=2024):
        return [
            *("publish", "--db", str(self.db), "--config", str(self.config)),
            *("--millesime", str(millesime), *more),
        ]

    def done(self, *more, **which):
        result = self.run(*more, "--json", **which)
        assert result.exit_code == 0, (result.exception, result.output)
        return json.loads(result.stdout)

    def failed(self, *more, **which):
        result = self.run(*more, **which)
        assert isinstance(result.exception, PublishError), (result.exception, result.output)
        text = str(result.exception)
        assert text.endswith(".") and "\n" not in text
        return text


@pytest.fixture
def publish(tmp_path, db, there):
    return Publish(configuration(there, tmp_path), db)


def state(db, year=2024):
    with Store.open(db) as store:
        return frame_at(store, end_of(year))


def assert_holds(there, stored, frame):
    """The platform's table is the map, value for value."""
    table = there.tables[stored][TABLE].frame.sort_values("id", ignore_index=True)
    wanted = frame.sort_values("id", ignore_index=True)
    assert table["id"].tolist() == wanted["id"].tolist()
    assert shapely.equals_identical(table.geometry.to_numpy(), wanted.geometry.to_numpy()).all()
    for name in wanted.columns.drop("geometry"):
        same = (table[name] == wanted[name]) | (table[name].isna() & wanted[name].isna())
        assert same.all(), name


def assert_published(there, done, frame):
    assert_holds(there, done["stored"], frame)
    offering = there.only("offerings")
    assert offering["status"] == "PUBLISHED" and offering["_id"] == done["offering"]
    assert offering["shows"]["used_data"][0]["stored_data"] == done["stored"]
    assert there.only("configurations")["status"] == "PUBLISHED"
    assert there.of("stored_data", done["stored"])["status"] == "GENERATED"
