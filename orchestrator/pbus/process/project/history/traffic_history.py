"""Traffic history of a project: headers of messages, in a log file beside those of the workers."""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from pbus.process.project.log_files import LogFile
from pbus.process.project.log_reader import iter_lines
from pbus.process.project.project import Project

_SERVICE: Final = "traffic"


class KeptMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The header of a message as it passed on the channel.

    Attributes:
        time: When it was made, by its sender's clock; Unix seconds.
        target: None for everyone.
        size_bytes: Bytes on the wire.
        is_urgent: It travelled in the system lane.
        is_reached: A process was there to take it.
        is_local: It stayed in its process, and a copy was seen.
        job_id: Of a message of a job; `job_name` of a request, `status` of an answer.
        frame: The type of the frame that it carries.
    """

    time: float
    id: str
    type: str
    source: str
    target: str | None
    size_bytes: int
    is_urgent: bool = False
    is_reached: bool = True
    is_local: bool = False
    key: str | None = None
    traceparent: str | None = None
    job_id: str | None = None
    job_name: str | None = None
    status: str | None = None
    frame: str | None = None


class Missed(msgspec.Struct, frozen=True):
    """Messages that passed unseen since the last entry."""

    count: int


class TrafficEntry(msgspec.Struct, frozen=True):
    """A message, or messages that passed unseen, with the time when that was known here."""

    at: float
    what: KeptMessage | Missed


class TrafficFile:
    """Writes the history. A disk that refuses is logged and no error."""

    def __init__(self, project: Project) -> None:
        self._file = LogFile(project.service_log_path(_SERVICE))

    def add(self, at: float, what: KeptMessage | Missed) -> None:
        """Append an entry; `at` is Unix seconds by this machine's clock."""
        stream = "message" if isinstance(what, KeptMessage) else "missed"
        self._file.write(at, stream, msgspec.json.encode(what).decode())

    def close(self) -> None:
        """Close the file; a later entry opens it again."""
        self._file.close()


def has_traffic(project: Project) -> bool:
    """Whether any traffic of a project was kept."""
    return project.service_log_path(_SERVICE).exists()


def read_traffic(
    project: Project, on_damage: Callable[[], object] = lambda: None
) -> Iterator[TrafficEntry]:
    """Yield what is kept, oldest first; damaged lines are left out.

    Args:
        project: Whose.
        on_damage: Called for each damaged line.

    Raises:
        OSError: The file cannot be read.
    """
    for line in iter_lines({"": project.service_log_path(_SERVICE)}):
        kind = _KINDS.get(line.stream)
        try:
            what = None if kind is None else msgspec.json.decode(line.text, type=kind)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            what = None
        if what is None:
            on_damage()
        else:
            yield TrafficEntry(line.time, what)


_KINDS: Final[dict[str, type[KeptMessage | Missed]]] = {"message": KeptMessage, "missed": Missed}
