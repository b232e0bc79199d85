"""``${VAR}``, ``${VAR:-default}`` and ``$$`` in scalars, after parsing: a value is never YAML."""

import re
from collections.abc import Mapping as AbstractMapping

import msgspec

from pbus.topology.parsing.nodes import Broken, Entry, Mapping, Node, Scalar, Sequence
from pbus.topology.parsing.scalars import text_problem
from pbus.topology.problems import Place, Problems, did_you_mean

MAX_NESTING = 10  # defaults within defaults
_ESCAPE_HINT = "write `$${` for the characters themselves"
_UNCLOSED = f"`${{` without its `}}`; {_ESCAPE_HINT}"
_NO_VARIABLE = f"expected `${{NAME}}` or `${{NAME:-default}}`; {_ESCAPE_HINT}"
_TOO_DEEP = f"more than {MAX_NESTING} defaults within each other"
_TOKEN = re.compile(r"\$\$|\$\{|\}")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:-|\})")


def expand_tree(
    node: Node, environ: AbstractMapping[str, str], problems: Problems, place: Place
) -> Node:
    """The tree with every scalar expanded, but no keys."""
    if isinstance(node, Scalar):
        return _expand_scalar(node, environ, problems, place)
    if isinstance(node, Sequence):
        items = [
            expand_tree(item, environ, problems, place.item(index, item.line))
            for index, item in enumerate(node.items)
        ]
        return msgspec.structs.replace(node, items=tuple(items))
    if isinstance(node, Mapping):
        entries = {
            key: Entry(
                entry.line,
                expand_tree(entry.node, environ, problems, place.key(key, entry.line)),
            )
            for key, entry in node.entries.items()
        }
        return msgspec.structs.replace(node, entries=entries)
    return node


def _expand_scalar(
    scalar: Scalar, environ: AbstractMapping[str, str], problems: Problems, place: Place
) -> Node:
    if "$" not in scalar.text:
        return scalar
    text, found = expand_text(scalar.text, environ)
    if not found and (problem := text_problem(text)):
        found = [f"after expansion, {problem}"]
    for problem in found:
        problems.add(place, problem)
    if found:
        return Broken(scalar.line)
    has_value = text != expand_text(scalar.text, {})[0]  # not only defaults, which the file shows
    is_secret = scalar.is_secret or has_value
    return msgspec.structs.replace(scalar, text=text, is_secret=is_secret)


def expand_text(text: str, environ: AbstractMapping[str, str]) -> tuple[str, list[str]]:
    """The text with variables replaced, and its problems.

    A variable that is set but empty counts as unset for a default, as in a shell. A ``$`` before
    anything but ``{`` and ``$`` is an ordinary character, so that shell commands can be written.
    """
    expander = _Expander(text, environ)
    try:
        return expander.run(), expander.problems
    except _MalformedError as error:
        return text, [*expander.problems, str(error)]


class _MalformedError(ValueError):
    """A ``${`` that is no expander."""


class _Expander:
    """Expands one text from left to right."""

    def __init__(self, text: str, environ: AbstractMapping[str, str]) -> None:
        self._text = text
        self._environ = environ
        self._position = 0
        self.problems: list[str] = []

    def run(self) -> str:
        """The whole text expanded."""
        return self._until_brace(depth=0, wanted=True)

    def _until_brace(self, *, depth: int, wanted: bool) -> str:
        """Expand up to the ``}`` that ends this default, or to the end of the text at depth 0."""
        pieces = []
        while match := _TOKEN.search(self._text, self._position):
            pieces.append(self._text[self._position : match.start()])
            self._position = match.end()
            if match[0] == "${":
                pieces.append(self._variable(depth=depth, wanted=wanted))
            elif match[0] == "$$":
                pieces.append("$")
            elif depth:
                return "".join(pieces)
            else:
                pieces.append("}")
        if depth:
            raise _MalformedError(_UNCLOSED)
        pieces.append(self._text[self._position :])
        return "".join(pieces)

    def _variable(self, *, depth: int, wanted: bool) -> str:
        match = _VARIABLE.match(self._text, self._position)
        if match is None:
            raise _MalformedError(_NO_VARIABLE)
        if depth >= MAX_NESTING:
            raise _MalformedError(_TOO_DEEP)
        self._position = match.end()
        name = match[1]
        value = self._environ.get(name)
        if match[2] == "}":
            if value is None and wanted:
                self._report_unset(name)
            return value or ""
        default = self._until_brace(depth=depth + 1, wanted=wanted and not value)
        return value or default

    def _report_unset(self, name: str) -> None:
        self.problems.append(
            f"the variable {name} is not set; set it, or write a default: ${{{name}:-...}}"
            + did_you_mean(name, self._environ)
        )
