"""Figures of the code base: `make measures` prints them, test_measures.py holds them to their limits."""

import ast
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lint.words import in_cache, left_words

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "orchestrator"
COMMAND = ROOT / "cli"
TESTS = ROOT / "tests"

# Copied by users or run by a shell: not read as part of the code base.
TEMPLATES = "templates"
_RELATIVE = re.compile(r"(What|Who[m]?|Whose|Which|Where|When|Why|How)\b")
_WHETHER = re.compile(r"; (tells )?whether\b")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = (ast.If, ast.IfExp, ast.Assert, ast.ExceptHandler)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: Path) -> list[Path]:
    """The Python files of folders, sorted, templates for users and caches apart."""
    found = [
        path
        for folder in folders
        for path in sorted(folder.rglob("*.py"))
        if not in_cache(path.relative_to(folder))
    ]
    return [path for path in found if TEMPLATES not in path.parts]


def code_lines(path: Path) -> int:
    """Count the lines with code: blank lines, comments and docstrings apart."""
    texts = path.read_text().splitlines()
    documented: set[int] = set()
    for node in _nodes(path):
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None:
            documented.update(range(node.body[0].lineno, _end(node.body[0]) + 1))
    return sum(
        bool(text.strip()) and not text.lstrip().startswith("#") and number not in documented
        for number, text in enumerate(texts, 1)
    )


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings of a file, each with the line of its owner."""
    for node in _nodes(path):
        if isinstance(node, Documented):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def complexity(function: ast.AST) -> int:
    """The cyclomatic complexity of a function, counted as radon does; nested functions apart."""
    return 1 + sum(map(_branches, _inside(function)))


def relative_docstrings() -> list[str]:
    """Docstrings that open with a relative clause ("What …", "Who …")."""
    return _docstrings_that(lambda text: _RELATIVE.match(text) is not None)


def whether_docstrings() -> list[str]:
    """Docstrings that tell what is returned as "; whether …"."""
    return _docstrings_that(lambda text: _WHETHER.search(text) is not None)


def complex_functions(limit: int = 10) -> list[str]:
    """Functions with more branches than the limit."""
    return [
        f"{_place(path, node.lineno)} {node.name} {complexity(node)}"
        for path, node in nodes(*_FUNCTIONS)
        if complexity(node) > limit
    ]


def large_classes(limit: int = 250) -> list[str]:
    """Classes with more lines than the limit."""
    return [
        f"{_place(path, node.lineno)} {node.name} {_length(node)}"
        for path, node in nodes(ast.ClassDef)
        if _length(node) > limit
    ]


def function_lengths() -> list[int]:
    """The lines of each function from its def to its end, its docstring apart."""
    return [
        _length(node) - (_length(node.body[0]) if ast.get_docstring(node) is not None else 0)
        for _, node in nodes(*_FUNCTIONS)
    ]


def nodes(*kinds: type[Any]) -> Iterator[tuple[Path, Any]]:
    """The definitions of some kinds in the library and the command."""
    for path in sources(LIBRARY, COMMAND):
        for node in _nodes(path):
            if isinstance(node, kinds):
                yield path, node


def file_lengths() -> list[int]:
    """The lines of each file."""
    return [len(path.read_text().splitlines()) for path in sources(LIBRARY, COMMAND)]


def percentile(values: list[int], share: float) -> int:
    """The smallest value that this share of the values does not exceed."""
    return sorted(values)[max(0, -(-len(values) * int(share * 100) // 100) - 1)]


def full_folders(limit: int = 15) -> list[str]:
    """Folders with more Python files than the limit."""
    counts = Counter(path.parent for path in sources(LIBRARY, COMMAND))
    return [f"{_name(folder)} {count}" for folder, count in counts.items() if count > limit]


def repeated_modules() -> dict[str, list[str]]:
    """Names that several modules have, with their places; packages and programs apart."""
    places: dict[str, list[str]] = {}
    for path in sources(LIBRARY, COMMAND):
        if not path.stem.startswith("__"):
            places.setdefault(path.stem, []).append(_name(path))
    return {name: found for name, found in places.items() if len(found) > 1}


def unexplained_repeats() -> dict[str, list[str]]:
    """Repeated names but one role in both backends (and its contract), and the verbs of commands."""
    found = {}
    for name, places in repeated_modules().items():
        rest = [place for place in places if "/commands/" not in place]
        roles = {re.sub(r"/bus/(redis|pgmq)/", "/bus/BACKEND/", place) for place in rest}
        allowed = 2 if len(roles) < len(rest) else 1  # the contract beside its backends
        if len(roles) > allowed:
            found[name] = rest
    return found


def total(*folders: Path) -> int:
    """The code lines of folders."""
    return sum(map(code_lines, sources(*folders)))


@dataclass(frozen=True)
class Measure:
    """A figure of the code base and its limit.

    Attributes:
        found: The places, or the figure itself.
        limit: The largest figure that is right; the smallest where `at_least`.
    """

    name: str
    found: list[str] | float
    limit: float
    at_least: bool = False

    @property
    def figure(self) -> float:
        """The figure, or the number of places."""
        return len(self.found) if isinstance(self.found, list) else self.found

    @property
    def holds(self) -> bool:
        """Whether the figure keeps to its limit."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


def measures() -> list[Measure]:
    """All figures."""
    code = total(LIBRARY, COMMAND)
    repeats = [f"{name}: {', '.join(found)}" for name, found in unexplained_repeats().items()]
    return [
        Measure("words that left the code base", left_words(), 0),
        Measure("docstrings that open with a relative clause", relative_docstrings(), 15),
        Measure("returns told as '; whether'", whether_docstrings(), 0),
        Measure("functions of a complexity over 10", complex_functions(), 0),
        Measure("classes over 250 lines", large_classes(), 0),
        Measure("lines of a function, p90", percentile(function_lengths(), 0.9), 15),
        Measure("lines of a file, p90", percentile(file_lengths(), 0.9), 260),
        Measure("folders over 15 files", full_folders(), 0),
        Measure("module names in several places", repeats, 0),
        Measure("code lines of orchestrator/ and cli/", code, 22_400),
        Measure("code lines of tests/ per code line", round(total(TESTS) / code, 2), 1.0, True),
    ]


def main() -> None:
    """Print the figures, and the places that do not keep to a limit."""
    for measure in measures():
        sign = "≥" if measure.at_least else "≤"
        mark = "  " if measure.holds else "! "
        print(f"{mark}{measure.name}: {measure.figure:,} ({sign} {measure.limit:,})")
        if not measure.holds and isinstance(measure.found, list):
            print(*(f"      {place}" for place in measure.found), sep="\n")


@functools.cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text())))


def _inside(function: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, _FUNCTIONS):
            yield child
            yield from _inside(child)


def _branches(node: ast.AST) -> int:
    if isinstance(node, _BRANCHES):
        return 1
    if isinstance(node, ast.Try):
        return bool(node.orelse)
    if isinstance(node, _LOOPS):
        return 1 + bool(node.orelse)
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return len(node.cases) if isinstance(node, ast.Match) else 0


def _docstrings_that(holds: Callable[[str], bool]) -> list[str]:
    return [
        f"{_place(path, line)} {text.splitlines()[0]}"
        for path in sources(LIBRARY, COMMAND)
        for line, text in docstrings(path)
        if holds(text)
    ]


def _length(node: ast.stmt) -> int:
    return _end(node) - node.lineno + 1


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _place(path: Path, line: int) -> str:
    return f"{_name(path)}:{line}"


if __name__ == "__main__":
    main()
