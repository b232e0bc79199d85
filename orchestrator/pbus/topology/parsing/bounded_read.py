"""Reads files that a user named, within a bound; errors fit into one line."""

import stat
from pathlib import Path

NO_FILE = "no such file"
MAX_BYTES = 1024 * 1024  # no topology is larger, and parsing takes seconds a megabyte


def read_text(path: Path) -> str:
    """The text of a file, with the line ends of Unix.

    Raises:
        ValueError: The file cannot be read; its text neither names nor quotes the file.
    """
    data = _read_bytes(path)
    if len(data) > MAX_BYTES:
        message = f"it is larger than {MAX_BYTES // 1024} KiB"
        raise ValueError(message)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"line {line} is not UTF-8 text"
        raise ValueError(message) from None
    if "\0" in text:
        message = "it holds NUL characters, so it is not text"
        raise ValueError(message)
    return text.replace("\r\n", "\n")


def is_folder(path: Path) -> bool:
    """Whether the path is a folder; False if that is unknown."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _read_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe without a writer would block for ever
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise OSError(0, f"it is {kind}")  # noqa: TRY301
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        message = NO_FILE
    except OSError as error:
        message = (error.strerror or type(error).__name__).lower()
    except ValueError:
        message = "the name holds a NUL character"
    raise ValueError(message)
