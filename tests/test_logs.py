"""As JSON, whatever goes to stderr is one object a line."""

import json
import subprocess
import sys

import pytest

CONFIGURED = "from daemon.logs import configure; configure(as_json=True); "


def said(code):
    done = subprocess.run(
        [sys.executable, "-c", CONFIGURED + code], capture_output=True, text=True, check=False
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("code", "event", "level"),
    [
        ("import logging; logging.getLogger('lib').warning('%s left', 3)", "3 left", "warning"),
        ("import warnings; warnings.warn('old way')", "old way", "warning"),
        ("raise ValueError('no')", "crashed", "critical"),
        (
            "import threading; threading.Thread(target=lambda: 1 / 0).start()",
            "thread_crashed",
            "critical",
        ),
    ],
)
def test_what_others_say_takes_the_form_of_all_lines(code, event, level):
    (line,) = said(code)
    assert event in line["event"] and line["level"] == level
    assert line["timestamp"].endswith("Z")


def test_a_traceback_stays_in_its_line():
    (line,) = said("raise ValueError('no')")
    assert line["exception"].endswith("ValueError: no") and "\n" in line["exception"]


def test_accents_are_kept():
    (line,) = said("import structlog; structlog.get_logger().info('é', where='désartificialisé')")
    assert (line["event"], line["where"]) == ("é", "désartificialisé")


def test_libraries_speak_of_trouble_only():
    code = "import logging; logging.getLogger('lib').info('x'); "
    code += "logging.getLogger('apscheduler').warning('skipped')"
    assert said(code) == []


@pytest.mark.parametrize("as_json", [True, False])
def test_a_command_that_fails_says_so_in_the_same_form(tmp_path, as_json):
    command = [sys.executable, "-m", "daemon.cli", *(["--log-json"] if as_json else [])]
    done = subprocess.run(
        [*command, "run", "--config", str(tmp_path / "none.toml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    if as_json:
        found = json.loads(line)
        assert (found["event"], found["level"], found["code"]) == ("failed", "error", 2)
        line = found["message"]
    assert "There is no configuration file" in line
