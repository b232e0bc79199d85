"""Imports the class of one worker and compares its parameters; constructs nothing.

A program: ``python -P -m pbus.process.class_check FD`` reads a WorkerLaunchSpec from stdin and
writes the problem, if there is one, to the descriptor FD.
"""

import inspect
import os
import sys
from pathlib import Path
from typing import Any, Final

from pbus.errors import WorkerLoadError
from pbus.process.system import path_json
from pbus.process.system.launch_plan import WorkerLaunchSpec
from pbus.process.worker_loader import load_class
from pbus.topology.paths import import_path

_MAX_CHARS: Final = 4096  # far less than a pipe holds


def main(descriptor: str) -> int:
    """Write the problem; 0 also where there is one."""
    spec = path_json.decode(sys.stdin.buffer.read(), WorkerLaunchSpec)
    os.dup2(2, 1)  # what the module prints is no data
    fd = int(descriptor)
    os.set_inheritable(fd, False)  # noqa: FBT003 - it has no name
    sys.path += import_path(*map(Path, spec.files))
    text = (problem_of(spec) or "")[:_MAX_CHARS]
    os.write(fd, f"{text}\n".encode(errors="backslashreplace"))  # a line: an early end shows
    return 0


def problem_of(spec: WorkerLaunchSpec) -> str | None:
    """The reason why a worker cannot be made, as far as that shows without making it."""
    try:
        kind: Any = load_class(spec.worker)
    except WorkerLoadError as error:
        return error.message
    try:
        inspect.signature(kind).bind("name", **spec.args)
    except TypeError as error:
        return f"{spec.worker} cannot be called with these args: {error}"
    except ValueError:  # it has no signature
        return None
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
