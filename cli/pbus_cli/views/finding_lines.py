"""The findings of `pbus doctor` as lines of text."""

from collections.abc import Callable, Mapping
from typing import Final

from pbus.client.doctor.findings import Finding

_WIDTH: Final = 11
COLORS: Final[Mapping[str, str]] = {"ok": "32", "warning": "1;33", "error": "1;31"}


def finding_lines(finding: Finding, paint: Callable[[str, str], str]) -> list[str]:
    """A line, those that follow its text, and one for what to do.

    Args:
        finding: What was found.
        paint: Colours a text, by the SGR code of a terminal.
    """
    first, *more = finding.text.splitlines() or [""]
    status = paint(f"{finding.status:7}", COLORS[finding.status])
    lines = [f"{status}  {finding.check:{_WIDTH}}  {first}"]
    indent = " " * (_WIDTH + 11)
    lines += [f"{indent}{line}" for line in more]
    if finding.hint:
        lines.append(f"{indent}→ {finding.hint}")
    return lines
