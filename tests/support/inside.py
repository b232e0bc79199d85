"""A `pbus` inside the tests' own process: a tenth of what one costs that has to load everything."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from pbus_cli.app import app
from support.ended import Done


def run_inside(
    arguments: tuple[str, ...], folder: Path, environ: Mapping[str, str], stdin: str = ""
) -> Done:
    """Run a verb to its end, in a folder and with an environment of its own."""
    began = time.time()
    with _surroundings(folder, environ):
        ended = CliRunner().invoke(app, arguments, input=stdin, prog_name="pbus")
    failed = ended.exception
    if failed is not None and not isinstance(failed, SystemExit):
        raise failed
    return Done(ended.exit_code, ended.stdout, ended.stderr, time.time() - began)


@contextlib.contextmanager
def _surroundings(folder: Path, environ: Mapping[str, str]) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with mock.patch.dict(os.environ, environ, clear=True), contextlib.chdir(folder):
        try:
            yield
        finally:  # a command shows warnings on a stderr that is closed now, or disables them
            root.handlers[:] = handlers
            root.setLevel(level)
            logging.disable(logging.NOTSET)
