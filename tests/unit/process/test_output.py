"""Splitting a child's output into lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.process.system.output import CUT_MARK, LineSplitter


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
        ([b"a\r", b"\n", b"\r", b"\nb\r\n"], ["a", "", "b"]),
        ([b"a\xffb\n"], ["a\ufffdb"]),
        ([b"1%\r2%\r", b"3%\n", b"end\n"], ["1%", "2%", "3%", "end"]),
        ([b"\r1%\r", b"2", b"5%\r\r", b"  \r100%\n"], ["1%", "25%", "100%"]),
        ([b"\r1%\r2%"], ["1%", "2%"]),
        ([b"123456789\r", b"\nx\n"], ["12345678" + CUT_MARK, "x"]),
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


def test_steps_are_shown_in_pauses():
    """The last step of a bar is not kept from who looks; nothing is told twice, or in halves."""
    splitter = LineSplitter()

    assert [] == [*splitter.feed(b"\r10%"), *splitter.feed(b"")]
    assert splitter.has_progress
    assert ["10%"] == list(splitter.pause())
    assert not splitter.has_progress
    assert [] == list(splitter.feed(b"\r20%"))
    assert ["20%"] == [*splitter.pause(), *splitter.pause()]
    assert [] == list(splitter.feed(b" of 7 MB"))
    assert ["20% of 7 MB", "done"] == [*splitter.feed(b"\n"), *splitter.feed(b"done\n")]
    assert [] == [*splitter.feed(b"no bar"), *splitter.pause()]


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
