"""What the documents say exists: commands, options, files."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from daemon.cli import app

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def invocations():
    for path in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
            for call in re.findall(r"millesimed ((?:[a-z-]+ ?)+[^&|;\n]*)", block):
                yield path.name, call.split("#")[0].strip()


def examples(group=None, path=()):
    """The call each command's help shows."""
    group = group or typer.main.get_command(app)
    for name, command in getattr(group, "commands", {}).items():
        yield from examples(command, (*path, name))
    if not hasattr(group, "commands"):
        text = " ".join((group.help or "").split())
        call = re.search(r"Example: millesimed (.*)", text)
        yield pytest.param(" ".join(path), call and call[1], id=" ".join(path))


def command_of(words):
    group, taken = typer.main.get_command(app), []
    for word in words:
        commands = getattr(group, "commands", {})
        if word not in commands:
            break
        group = commands[word]
        taken.append(word)
    return group, words[len(taken) :]


@pytest.mark.parametrize(("document", "call"), list(invocations()))
def test_every_documented_call_names_a_command_and_its_options(document, call):
    command, rest = command_of(call.split())
    assert not hasattr(command, "commands"), f"{document}: no such command: {call}"
    known = {option for parameter in command.params for option in parameter.opts}
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in known, f"{document}: {word} in {call}"


@pytest.mark.parametrize(("path", "call"), list(examples()))
def test_the_example_in_a_help_is_a_call_of_that_command(path, call):
    assert call is not None, "no example"
    command, rest = command_of(shlex.split(call))
    assert call.startswith(path)
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.split("=")[0] for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_every_file_and_module_a_document_names_is_there(path):
    names = set(
        re.findall(
            r"`((?:schemas|detectors|updater|daemon|deploy|tests|docs)[\w./]*)`", path.read_text()
        )
    )
    for name in names:
        dotted = ROOT / name.replace(".", "/")
        there = (ROOT / name).exists() or dotted.is_dir() or dotted.with_suffix(".py").exists()
        assert there, f"{path.name} names {name}"
