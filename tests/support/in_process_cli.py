"""A `pbus` inside the tests' own process: a tenth of what one costs that has to load everything."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from pbus.frames import Frame
from pbus.messages import BusMessage
from pbus.structs import Catalogue
from pbus_cli.app import app
from support.command_result import Done


def run_inside(
    arguments: tuple[str, ...], folder: Path, environ: Mapping[str, str], stdin: str = ""
) -> Done:
    """Run a verb to its end, in a folder and with an environment of its own."""
    began = time.time()
    with (
        mock.patch.dict(os.environ, environ, clear=True),
        contextlib.chdir(folder),
        _own_logging(),
        _without_strangers(BusMessage.catalogue),
        _without_strangers(Frame.catalogue),
    ):
        ended = CliRunner().invoke(app, arguments, input=stdin, prog_name="pbus")
    failed = ended.exception
    if failed is not None and not isinstance(failed, SystemExit):
        raise failed
    return Done(ended.exit_code, ended.stdout, ended.stderr, time.time() - began)


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Undo that a command shows warnings, on a stderr that is closed then, or disables them."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _without_strangers(catalogue: Catalogue) -> Iterator[None]:
    """Hide the types that tests of this process made: a command does not know them."""
    known = catalogue._classes
    strangers = {name: cls for name, cls in known.items() if not cls.__module__.startswith("pbus")}
    for name in strangers:
        del known[name]
    _note_change(catalogue)
    try:
        yield
    finally:
        known.update(strangers)
        _note_change(catalogue)


def _note_change(catalogue: Catalogue) -> None:
    for callback in catalogue._on_change:
        callback()
