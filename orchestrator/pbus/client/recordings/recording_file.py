"""Files of recordings: MCAP or JSON lines, by the file's ending."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final, TypeAlias

from pbus.client.recordings.json_recording import JsonRecordingWriter, read_json_recording
from pbus.client.recordings.recording import (
    VERSION,
    RecordedMessage,
    Recording,
    RecordingEnd,
    RecordingHead,
    RecordingWriter,
)
from pbus.errors import McapMissingError, RecordingFileError

JSON_ENDINGS: Final = (".jsonl", ".ndjson", ".json")
MCAP_ENDING: Final = ".mcap"
Part: TypeAlias = RecordingHead | RecordedMessage | RecordingEnd


def check_ending(path: Path) -> None:
    """Check that a file's ending tells a format that can be written here.

    Raises:
        RecordingFileError: It is none.
        McapMissingError: The package for it is not installed.
    """
    if path.suffix == MCAP_ENDING:
        _mcap()
    elif path.suffix not in JSON_ENDINGS:
        problem = f"its ending {path.suffix!r} is no format of recordings"
        raise RecordingFileError(path, problem, hint="name it *.mcap or *.jsonl")


def new_recording(path: Path, head: RecordingHead) -> RecordingWriter:
    """Begin a file; one that is there is replaced.

    Raises:
        RecordingFileError: Its ending is no format.
        McapMissingError: The package for it is not installed.
        OSError: It cannot be written.
    """
    check_ending(path)
    if path.suffix != MCAP_ENDING:
        return JsonRecordingWriter(path, head)
    writer: RecordingWriter = _mcap().McapRecordingWriter(path, head)
    return writer


def read_recording(path: Path) -> Recording:
    """Read a file, as far as it goes.

    Raises:
        RecordingFileError: It is none, cannot be read, or is of another version.
        McapMissingError: The package for it is not installed.
    """
    check_ending(path)
    parts: list[Part] = []
    problem = ""
    try:
        parts.extend(_parts(path))
    except OSError as error:
        raise RecordingFileError(path, f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        problem = str(error)
    head = next((part for part in parts if isinstance(part, RecordingHead)), None)
    if head is None:
        raise RecordingFileError(path, problem or "it is no recording of pbus")
    if head.version != VERSION:
        problem = f"it has version {head.version} of the format, and this pbus reads {VERSION}"
        raise RecordingFileError(path, problem)
    return _recording(head, parts, problem)


def _recording(head: RecordingHead, parts: list[Part], problem: str) -> Recording:
    messages = tuple(part for part in parts if isinstance(part, RecordedMessage))
    end = parts[-1] if isinstance(parts[-1], RecordingEnd) and not problem else None
    return Recording(head=head, messages=messages, end=end, problem=problem)


def _parts(path: Path) -> Iterator[Part]:
    if path.suffix == MCAP_ENDING:
        yield from _mcap().read_mcap_recording(path)
    else:
        yield from read_json_recording(path)


def _mcap() -> ModuleType:
    try:
        return importlib.import_module("pbus.client.recordings.mcap_recording")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "mcap":
            raise
        raise McapMissingError from error
