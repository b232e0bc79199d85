"""The record of a running project, by which other processes reach it."""

import logging
import os
import time
from importlib import metadata
from pathlib import Path

import msgspec

from pbus.process.system import path_json, regular_files
from pbus.process.system.groups import is_same_process, start_time
from pbus.settings import BusSettings
from pbus.urls import mask_url

LAST = "last.json"  # in a state folder

logger = logging.getLogger(__name__)


def _own_start_time() -> float:
    return start_time(os.getpid()) or 0.0


def _own_version() -> str:
    return metadata.version("pbus-orchestrator")


class ProjectRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A supervisor's record of itself. The defaults describe this process.

    Attributes:
        name: Of the topology; folder and file likewise, absolute, as the user named them.
        overrides: Files that the user named after the first.
        bus: With the broker's password and the bus' key: in a file that only the user can read.
        grace_s: Seconds that its workers may take to stop one after the other, where they say so.
        pid: The supervisor.
        pid_created: Its `groups.start_time`, which tells it from a later process of that number.
        state: The project's state folder; filled in when it is written.
        has_supervisor: False for a `pbus run` that has a broker for itself.
    """

    name: str
    folder: str
    file: str
    session: str
    bus: BusSettings
    overrides: tuple[str, ...] = ()
    grace_s: float = 0.0
    pid: int = msgspec.field(default_factory=os.getpid)
    pid_created: float = msgspec.field(default_factory=_own_start_time)
    state: str = ""
    has_supervisor: bool = True
    started_at: float = msgspec.field(default_factory=time.time)
    version: str = msgspec.field(default_factory=_own_version)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that the topology is loaded from, in order."""
        return (Path(self.file), *map(Path, self.overrides))

    @property
    def is_alive(self) -> bool:
        """Whether this supervisor process runs."""
        return is_same_process(self.pid, self.pid_created)

    def __repr__(self) -> str:
        """Without the password."""
        return f"ProjectRecord({self.name!r}, pid={self.pid}, bus={self.bus!r})"


def write_record(path: Path, record: ProjectRecord) -> None:
    """Write the record atomically."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(path_json.encode(record))
    draft.replace(path)


def write_last(state_dir: Path, record: ProjectRecord, *, is_own_broker: bool) -> None:
    """Write the record that leads to a project's data while it does not run, without secrets.

    Args:
        state_dir: The project's state folder.
        record: The record of this run; the written one has no `session`.
        is_own_broker: The broker's data is in the project's folders; then no `url` is written.
    """
    url = None if is_own_broker else mask_url(record.bus.url or "")
    bus = msgspec.structs.replace(record.bus, url=url, key=None)
    last = msgspec.structs.replace(record, bus=bus, session="", state=str(state_dir))
    write_record(state_dir / LAST, last)


def ran_with(state_dir: Path, url: str) -> bool:
    """Whether the last run of a project used the broker at a URL: its file may have changed."""
    last = read_record(state_dir / LAST)
    return last is not None and last.bus.url == mask_url(url)


def read_record(path: Path) -> ProjectRecord | None:
    """Return the record on disk; only the lock and the pid tell whether it is true."""
    try:
        return path_json.decode(regular_files.read(path), ProjectRecord)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        logger.warning("cannot read %s: %s", path, error)
        return None
