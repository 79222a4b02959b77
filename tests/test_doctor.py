"""The doctor: what is whole is called whole, and each thing that is broken is named."""

import json
import socket
import subprocess
import sys
import threading
from contextlib import closing
from importlib import metadata

import pytest

from daemon import doctor
from daemon.config import HttpSettings, KafkaSettings, Settings, SmtpSettings
from daemon.doctor import Verdict, examine
from tests.integration.broker import available, broker, free_port
from tests.map_store import made_store

HOLD = """
import sys
from pathlib import Path
from updater.store import Store
with Store.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "D032.duckdb"
    made_store(path)[0].close()
    return path


def found(settings, *checks):
    return {f.check: f for check in checks for f in check(settings)}


def test_a_machine_that_runs_the_tests_is_in_order(db):
    settings = Settings(db=[db], http=HttpSettings(port=free_port()))
    findings = examine(settings)
    assert {f.verdict for f in findings} - {Verdict.GOOD} <= {Verdict.DOUBTFUL}  # a small disk
    assert {"python", "packages", "duckdb", "formats", "device", "weights"} <= {
        f.check for f in findings if f.verdict is Verdict.GOOD
    }
    assert all((f.mend is None) == (f.verdict is Verdict.GOOD) for f in findings)


@pytest.mark.parametrize(
    ("have", "text"), [("0.1", "torch 0.1 is not ==2.13.0"), (None, "torch is missing")]
)
def test_a_package_of_another_version_is_named(monkeypatch, have, text):
    real = metadata.version

    def version(name):
        if name != "torch":
            return real(name)
        if have is None:
            raise metadata.PackageNotFoundError(name)
        return have

    monkeypatch.setattr(metadata, "version", version)
    finding = found(Settings(), doctor.versions)["packages"]
    assert (finding.verdict, finding.found) == (Verdict.BAD, text)
    assert "pip install" in finding.mend


def test_a_store_in_use_is_no_fault_and_is_left_alone(db):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, db],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        finding = found(Settings(db=[db]), doctor.stores)[f"store {db.name}"]
        assert (finding.verdict, finding.found) == (Verdict.GOOD, "in use by another process")
        holder.kill()


def test_a_store_that_was_not_closed_is_told_and_not_repaired_here(db):
    log_file = db.with_name(db.name + ".wal")
    log_file.write_bytes(b"something")
    finding = found(Settings(db=[db]), doctor.stores)[f"store {db.name}"]
    assert finding.verdict is Verdict.DOUBTFUL
    assert log_file.read_bytes() == b"something"


def test_what_is_no_store_is_bad(tmp_path):
    path = tmp_path / "D032.duckdb"
    path.write_bytes(b"\0" * 4096)
    assert found(Settings(db=[path]), doctor.stores)[f"store {path.name}"].verdict is Verdict.BAD


def test_a_broker_that_is_away_is_named_without_its_password():
    options = {"sasl.password": "hush-hush", "sasl.username": "me"}
    kafka = KafkaSettings(servers=f"127.0.0.1:{free_port()}", options=options)
    finding = found(Settings(kafka=kafka), doctor.broker)["kafka"]
    assert finding.verdict is Verdict.BAD
    assert kafka.servers in finding.found
    assert "hush" not in str(finding)


@pytest.mark.skipif(not available(), reason="no broker is installed")
def test_topics_that_are_not_there_are_named(tmp_path):
    with broker(tmp_path) as server:
        kafka = KafkaSettings(servers=server)
        assert found(Settings(kafka=kafka), doctor.broker)["kafka"].verdict is Verdict.GOOD
        kafka = KafkaSettings(servers=server, alerts="elsewhere")
        finding = found(Settings(kafka=kafka), doctor.broker)["kafka"]
        assert finding.verdict is Verdict.DOUBTFUL
        assert finding.found.endswith("has no elsewhere")
        kafka = KafkaSettings(servers=server, tasks="nobodys")  # judgements' topic is there
        finding = found(Settings(kafka=kafka), doctor.broker)["kafka"]
        assert finding.found.endswith("has no nobodys")
        kafka = KafkaSettings(servers=server, tasks="no", judgements="none")
        assert found(Settings(kafka=kafka), doctor.broker)["kafka"].verdict is Verdict.GOOD
        split = Settings(kafka=kafka, exchange=tmp_path)
        assert found(split, doctor.broker)["kafka"].found.endswith("has no no, none")


@pytest.mark.parametrize("speaks", [False, True])
def test_a_port_somebody_else_has_is_named(speaks):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        if speaks:
            threading.Thread(target=_answer, args=(taken,), daemon=True).start()
        http = HttpSettings(port=taken.getsockname()[1])
        finding = found(Settings(http=http), doctor.http)["http"]
    assert finding.verdict is (Verdict.GOOD if speaks else Verdict.BAD)


def _answer(taken):
    connection, _ = taken.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n")
    connection.close()


def test_a_mail_server_that_is_away_is_named():
    port = free_port()
    smtp = SmtpSettings(host="127.0.0.1", port=port, sender="map@example.org")
    finding = found(Settings(smtp=smtp), doctor.mail)["mail"]
    assert finding.verdict is Verdict.BAD
    assert str(port) in finding.found


def test_weights_that_are_none_are_bad(tmp_path):
    path = tmp_path / "siamese.safetensors"
    path.write_bytes(b"no weights")
    assert found(Settings(weights=path), doctor.devices)["weights"].verdict is Verdict.BAD


def test_a_check_that_breaks_down_is_a_finding(monkeypatch):
    def formats(_):
        raise RuntimeError("no GDAL")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (formats,))
    (finding,) = examine(Settings())
    assert (finding.check, finding.verdict) == ("formats", Verdict.BAD)


def test_the_command_gives_one_object_and_fails_where_something_is_bad(tmp_path):
    (tmp_path / "millesimed.toml").write_text('db = ["none.duckdb"]\n[http]\nport = 0\n')
    call = [sys.executable, "-m", "daemon.cli", "doctor", "--json"]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert not document["healthy"]
    bad = [f["check"] for f in document["findings"] if f["verdict"] == "bad"]
    assert bad == ["store none.duckdb"]
    assert "store none.duckdb" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "millesimed.toml"]
