"""Files of ``NAME=VALUE`` lines, as `env_file` names them."""

import re
from pathlib import Path

from pbus.topology.files import read_text
from pbus.topology.problems import Place, Problems

_ASSIGNMENT = re.compile(r"(?:export\s+)?([^\s=]+)\s*=\s*(.*)", re.DOTALL)
_COMMENT = re.compile(r"(?:^|\s)#.*")
_QUOTED = re.compile(r"""("(?:[^"\\]|\\.)*"|'[^']*')\s*(?:#.*)?""")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class EnvFiles:
    """The environment files of one topology; each is read, and its problems told, once."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self._folder = folder
        self._problems = problems
        self._known: dict[Path, dict[str, str]] = {}

    def read(self, name: str, place: Place) -> dict[str, str]:
        """The variables of a file, named relative to the topology's folder."""
        path = self._folder / name
        if path not in self._known:
            self._known[path] = self._parse(path, place)
        return self._known[path]

    def _parse(self, path: Path, place: Place) -> dict[str, str]:
        try:
            text = read_text(path)
        except ValueError as error:
            self._problems.add(place, f"the environment file cannot be read: {error}")
            return {}
        variables = {}
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                name, value = _variable(line.strip())
            except ValueError as error:
                self._problems.add(place._replace(line=number), str(error), file=path)
            else:
                variables[name] = value
        return variables


def _variable(line: str) -> tuple[str, str]:
    """Name and value of one line; the errors never quote it, since it may be a secret."""
    match = _ASSIGNMENT.fullmatch(line)
    if match is None:
        message = "expected NAME=VALUE"
        raise ValueError(message)
    name, value = match.groups()
    if value[:1] in {"'", '"'}:
        return name, _unquote(value)
    return name, _COMMENT.sub("", value).strip()


def _unquote(value: str) -> str:
    match = _QUOTED.fullmatch(value)
    if match is None:
        message = "expected one quoted value, with its closing quote at the end of the line"
        raise ValueError(message)
    inner = match[1][1:-1]
    if match[1].startswith("'"):
        return inner
    return _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[1]), inner)
