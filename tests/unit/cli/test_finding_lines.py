"""The findings of `pbus doctor` as lines: aligned, coloured by status, whatever their text."""

import pytest

from pbus.client.doctor.findings import Finding, error, ok, warning
from pbus_cli.views.finding_lines import COLORS, finding_lines


def plain(text: str, code: str) -> str:
    """No colours; the code is one that a status has."""
    assert code in COLORS.values()
    return text


@pytest.mark.parametrize(
    ("finding", "lines"),
    [
        (ok("broker", "answers"), ["ok       broker       answers"]),
        (ok("broker", ""), ["ok       broker       "]),
        (
            warning("python", "old\nvery old", "get a newer one"),
            [
                "warning  python       old",
                "                      very old",
                "                      → get a newer one",
            ],
        ),
        (error("a-very-long-check", "x\n", None), ["error    a-very-long-check  x"]),
        (error("disk", "x\r\n\r\ny", ""), ["error    disk         x", " " * 22, " " * 22 + "y"]),
    ],
)
def test_lines_of_a_finding(finding: Finding, lines: list[str]) -> None:
    """Each line of the text, and what to do, below where the text begins."""
    assert lines == finding_lines(finding, plain)


def test_only_the_status_is_coloured() -> None:
    """So that a text can be copied; its width is that without codes."""
    for status, code in COLORS.items():
        finding = Finding(check="c", status=status, text="t", hint="h")
        first, hint = finding_lines(finding, lambda text, code: f"<{code}>{text}</>")
        assert first.startswith(f"<{code}>{status:7}</>  c")
        assert "<" not in hint
