"""The command calls the library: it makes no message and listens under no address."""

import ast
import re
from pathlib import Path

import pbus_cli

# What happened, to be shown: not asked for, not constructed.
_SHOWN = {"BusWorkerStateMessage"}
_BANNED = re.compile(r"Bus\w*Message|BusSubscriber|JobClient|WorkerRegistry|WorkerRunner")


def banned_in(text: str) -> set[str]:
    """The banned names that a program imports or uses."""
    names = set[str]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Name):
            names.add(node.id)
    return {name for name in names if _BANNED.fullmatch(name)} - _SHOWN


def test_command_makes_no_messages():
    """Flags, one client call, a view, an exit code: the protocol is the library's alone."""
    files = sorted(Path(pbus_cli.__file__).parent.rglob("*.py"))
    found = {
        str(file): names
        for file in files
        if "templates" not in file.parts and (names := banned_in(file.read_text(encoding="utf-8")))
    }

    assert len(files) > 40
    assert {} == found


def test_made_messages_are_found():
    """The check sees imports, and what is reached through a module."""
    assert {"BusJobCancelMessage"} == banned_in("from pbus.messages import BusJobCancelMessage")
    assert {"BusJobRequestMessage"} == banned_in(
        "import pbus\npbus.BusJobRequestMessage(source='a')"
    )
