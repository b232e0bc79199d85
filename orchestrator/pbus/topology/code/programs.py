"""Looks for the programs of `command`, as starting them would."""

import os
import shutil
from pathlib import Path
from typing import Final

from pbus.topology.problems import did_you_mean, suggestion

_PYTHON: Final = ("python", "python3")


def program_problem(command: tuple[str, ...], folder: Path, variable: str) -> str | None:
    """The reason why a program cannot be started, or None.

    Args:
        command: It and its arguments.
        folder: Where it is started.
        variable: PATH of the worker.
    """
    program = command[0]
    if os.sep in program:
        return _file_problem(folder / program, program)
    places = [folder / place / program for place in variable.split(os.pathsep)]
    if any(place.is_file() and os.access(place, os.X_OK) for place in places):
        return None
    if (folder / program).is_file():
        return f"there is no program `{program}` in PATH{suggestion('./' + program)}"
    if any(place.is_file() for place in places):
        return f"the program `{program}` in PATH is not executable"
    return f"there is no program `{program}` in PATH{did_you_mean(program, _programs(variable))}"


def script_problem(command: tuple[str, ...], folder: Path) -> str | None:
    """The reason why Python cannot run a script, or None; other interpreters are not looked at."""
    if len(command) == 1 or Path(command[0]).name not in _PYTHON:
        return None
    script = command[1]
    if not script.endswith(".py") or script.startswith("-") or (folder / script).exists():
        return None
    near = did_you_mean(script, [path.name for path in folder.glob("*.py")])
    return f"there is no file `{script}`{near}"


def _file_problem(path: Path, program: str) -> str | None:
    if not path.exists():
        near = did_you_mean(program, ["./" + one.name for one in _files(path.parent)])
        return f"there is no program `{program}`{near}"
    if path.is_dir():
        return f"`{program}` is a folder, not a program"
    if shutil.which(path) is None:
        return f"`{program}` is not executable (chmod +x {program})"
    return None


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


def _programs(variable: str) -> list[str]:
    return [path.name for folder in variable.split(os.pathsep) for path in _files(Path(folder))]
