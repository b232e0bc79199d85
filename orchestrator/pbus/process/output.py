"""A child's stdout and stderr as lines: bounded in memory whatever the child writes."""

from collections.abc import Iterator

MAX_LINE_BYTES = 64 * 1024
CUT_MARK = " … [line cut by pbus at 64 KiB]"


class LineSplitter:
    """Turns chunks of bytes into lines of text; a line that does not end is cut, not kept."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()
        self._skipping = False  # the head of a long line was given out; its tail is dropped

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that this chunk completes."""
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            line = self._take(piece)
            if line is not None:
                yield line
        yield from self._keep(rest)

    def flush(self) -> Iterator[str]:
        """The last line, where the output ended without a newline."""
        if self._rest:
            yield self._take(b"") or ""

    def _take(self, piece: bytes) -> str | None:
        """End the current line with these bytes."""
        if self._skipping:
            self._skipping = False
            return None
        line = bytes(self._rest) + piece if self._rest else piece
        self._rest.clear()
        if len(line) > self._limit:
            return _text(line[: self._limit]) + CUT_MARK
        return _text(line)

    def _keep(self, piece: bytes) -> Iterator[str]:
        """Hold the beginning of a line, up to the limit."""
        if self._skipping or not piece:
            return
        self._rest += piece
        if len(self._rest) > self._limit:
            yield _text(bytes(self._rest[: self._limit])) + CUT_MARK
            self._rest.clear()
            self._skipping = True


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
