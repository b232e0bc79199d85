"""Environment files (`env_file`): ``NAME=VALUE`` lines by the rules of Docker Compose."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pbus.topology.parsing.bounded_read import read_text
from pbus.topology.problems import Place, Problems

_IGNORED: Final = re.compile(r"(?:\s+|#[^\n]*)*")
_REST: Final = re.compile(r"[^\n]*")  # of the line
_NAME: Final = re.compile(r"(?:export[^\S\n]+)?([\w.\-\[\]]+)[^\S\n]*(?:([=:])[^\S\n]*|(?=\n|$))")
_QUOTED: Final = {
    quote: re.compile(
        rf"{quote}((?:[^{quote}\\]|\\.)*){quote}[^\S\n]*(?:#[^\n]*)?(?=\n|$)", re.DOTALL
    )
    for quote in ("'", '"')
}
_ESCAPE: Final = re.compile(r"\\([abfnrtv$\\]|0[0-3][0-7]{2})")
_ESCAPES: Final = dict(zip("abfnrtv\\", "\a\b\f\n\r\t\v\\", strict=True))
_REFERENCE: Final = re.compile(
    r"\$(?:\$|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*))"
)
_BRACE: Final = re.compile(r"\$\{|\}")
_OPERATOR: Final = re.compile(r"(?:(:?[-+?])(.*))?", re.DOTALL)
_EXPECTED: Final = "expected NAME=VALUE"
_UNQUOTED: Final = "expected one quoted value, with its closing quote at the end of the line"


class EnvFiles:
    """The environment files of one topology; each is read once.

    Args:
        folder: The topology's.
        problems: Collects the problems of the files.
        environ: The values of references in the files.
    """

    def __init__(self, folder: Path, problems: Problems, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self._problems = problems
        self._known: dict[Path, dict[str, str]] = {}

    def read(self, name: str, place: Place) -> dict[str, str]:
        """The variables of a file, named relative to the topology's folder."""
        path = self._folder / name
        if path not in self._known:
            self._known[path] = self._parse(path, place)
        return self._known[path]

    def read_all(self, names: Iterable[str], place: Place) -> dict[str, str]:
        """The variables of several files; later ones win."""
        return {key: value for name in names for key, value in self.read(name, place).items()}

    def _parse(self, path: Path, place: Place) -> dict[str, str]:
        try:
            text = read_text(path)
        except ValueError as error:
            self._problems.add(place, f"the environment file cannot be read: {error}")
            return {}
        parser = _EnvParser(text, self._environ)
        for line, problem in parser.run():
            self._problems.add(place._replace(line=line), problem, file=path)
        return parser.variables


class _EnvParser:
    """Reads one file from top to bottom, by the rules of Docker Compose.

    Args:
        text: The file's.
        environ: The values of references; they win over the variables of the file.

    Attributes:
        variables: The variables found so far.
    """

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        self._text = text
        self._environ = environ
        self._position = 0
        self.variables: dict[str, str] = {}

    def run(self) -> Iterator[tuple[int, str]]:
        """Yield lines and problems, without quoting values: they may be secret."""
        while self._skip(_IGNORED) < len(self._text):
            line = self._text.count("\n", 0, self._position) + 1
            try:
                self._read_statement()
            except ValueError as error:
                yield line, str(error)
                self._skip(_REST)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._position)
        self._position = self._position if match is None else match.end()
        return self._position

    def _read_statement(self) -> None:
        match = _NAME.match(self._text, self._position)
        if match is None:
            raise ValueError(_EXPECTED)
        self._position = match.end()
        name = match[1]
        if match[2]:
            self.variables[name] = self._value()
        elif name in self._environ:  # a name alone passes on what the environment has
            self.variables[name] = self._environ[name]

    def _value(self) -> str:
        quote = self._text[self._position : self._position + 1]
        if quote not in {"'", '"'} or not quote:
            start, end = self._position, self._skip(_REST)
            value = self._text[start:end]
            return self._expanded(value.partition(" #")[0].rstrip())
        match = _QUOTED[quote].match(self._text, self._position)
        if match is None:
            raise ValueError(_UNQUOTED)
        self._position = match.end()
        inner = match[1].replace(f"\\{quote}", quote)
        return inner if quote == "'" else self._expanded(_ESCAPE.sub(_unescaped, inner))

    def _expanded(self, value: str) -> str:
        return expand_references(value, {**self.variables, **self._environ})


def _unescaped(match: re.Match[str]) -> str:
    char = match[1]
    if char == "$":
        return "$$"  # no reference
    if char in _ESCAPES:
        return _ESCAPES[char]
    return chr(int(char[1:], 8))


def expand_references(text: str, known: Mapping[str, str]) -> str:
    """A value with its references replaced by the rules of Compose; an unknown variable is empty.

    ``$NAME`` and ``${NAME}``; with a default ``${NAME:-x}``, with another value for one that is
    set ``${NAME:+x}``, required ``${NAME:?why}``; without the colon an empty variable counts as
    set. ``$$`` is a dollar, and so is one that begins no reference.

    Raises:
        ValueError: A required variable is missing, or a brace is not closed.
    """
    pieces = []
    position = 0
    while match := _REFERENCE.search(text, position):
        pieces.append(text[position : match.start()])
        position = match.end()
        if match[0] == "$$":
            pieces.append("$")
        elif match["name"]:
            pieces.append(known.get(match["name"], ""))
        else:
            end = _closing_brace(text, position)
            pieces.append(_braced(match["braced"], text[position:end], known))
            position = end + 1
    return "".join([*pieces, text[position:]])


def _closing_brace(text: str, position: int) -> int:
    depth = 1
    for match in _BRACE.finditer(text, position):
        depth += 1 if match[0] == "${" else -1
        if not depth:
            return match.start()
    message = "`${` without its `}`; write `$${` for the characters themselves"
    raise ValueError(message)


def _braced(name: str, rest: str, known: Mapping[str, str]) -> str:
    match = _OPERATOR.fullmatch(rest)
    if match is None:
        message = "expected `${NAME}`, or NAME with one of `:-`, `-`, `:+`, `+`, `:?`, `?`"
        raise ValueError(message)
    operator, word = match[1] or "", match[2]
    value = known.get(name)
    has_value = bool(value) if operator.startswith(":") else value is not None
    match operator[-1:], has_value:
        case ("-", False) | ("+", True):
            return expand_references(word, known)
        case ("?", False):
            message = f"the variable {name} is required: {word or 'it is not set'}"
            raise ValueError(message)
        case ("+", False):
            return ""
    return value or ""
