"""Splitting a child's output into lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.process.output import CUT_MARK, LineSplitter


def split(*chunks: bytes, limit: int = 8) -> list[str]:
    splitter = LineSplitter(limit)
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return [*lines, *splitter.flush()]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], []),
        ([b""], []),
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b", b"c\nd"], ["abc", "d"]),
        ([b"a\r\n\nb"], ["a", "", "b"]),
        ([b"a\xffb\n"], ["a\ufffdb"]),
        ([b"\xe2\x82", b"\xac\n"], ["€"]),
        ([b"12345678\n"], ["12345678"]),
        ([b"123456789\nx\n"], ["12345678" + CUT_MARK, "x"]),
        ([b"12345", b"6789", b"abc", b"def\nx\n"], ["12345678" + CUT_MARK, "x"]),
        ([b"123456789"], ["12345678" + CUT_MARK]),
    ],
)
def test_chunks_become_lines(chunks: list[bytes], expected: list[str]):
    """Lines are whole whatever the chunks; long ones are cut with a mark, bad bytes replaced."""
    assert expected == split(*chunks)


def test_endless_line_bounded():
    """A child that never writes a newline costs no more memory than one line."""
    splitter = LineSplitter(100)

    lines = [line for _ in range(1000) for line in splitter.feed(b"x" * 64)]

    assert ["x" * 100 + CUT_MARK] == lines
    assert len(splitter._rest) <= 200


@given(st.lists(st.text(alphabet="ab €", max_size=8)), st.integers(1, 5))
def test_chunking_never_matters(lines: list[str], size: int):
    """Where the pipe happens to break the stream changes nothing."""
    data = "".join(f"{line}\n" for line in lines).encode()
    chunks = [data[at : at + size] for at in range(0, len(data), size)]

    assert lines == split(*chunks, limit=100)
