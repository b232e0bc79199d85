"""A project (a topology's name and folder): its folders, files and record."""

import contextlib
import functools
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import quote, unquote

import msgspec

from pbus.errors import ProcessError
from pbus.process.project.folders import (
    MAX_SOCKET_PATH,
    folder_id,
    make_private,
    refuse_foreign_path,
    refuse_odd_files,
    runtime_roots,
    state_root,
)
from pbus.process.project.record import ProjectRecord, read_record, write_record
from pbus.settings import BusSettings
from pbus.topology.model import Topology

RECORD = "project.json"

_CUT = "%~"  # in the name of a file whose worker's name is too long for it
_LONGEST_STEM = 200  # bytes; file systems allow 255, and suffixes come behind it
_LONGEST_NAME = "valkey.sock"  # of what goes into a runtime folder


@dataclass
class Project:
    """The places of a topology's state and sockets on this machine.

    Attributes:
        overrides: Files of the topology that were given after the first.
        lock_fd: The locked file while this process holds the project's lock. The guard holds it
            too, so that the project counts as running until the guard has cleaned up.
    """

    name: str
    folder: Path
    file: Path
    overrides: tuple[Path, ...] = ()
    lock_fd: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, topology: Topology) -> Self:
        """The project of a topology."""
        return cls(topology.name, topology.folder, topology.file, topology.overrides)

    @classmethod
    def of_record(cls, record: ProjectRecord) -> Self:
        """The project of a record."""
        file, *overrides = record.files
        project = cls(record.name, Path(record.folder), file, tuple(overrides))
        if record.state:  # not always the state folder of this process
            project.state_dir = Path(record.state)
        return project

    @functools.cached_property
    def id(self) -> str:
        """Unique among the projects of this user's state folder, and the same at every start."""
        return folder_id(self.name, str(self.folder))

    @functools.cached_property
    def state_dir(self) -> Path:
        """The folder of logs, lock and record; it stays when the project ends."""
        return state_root() / self.id

    @functools.cached_property
    def runtime_dir(self) -> Path:
        """The folder of sockets; short, since their paths are limited, and removed at every end."""
        # Named by the state folder: state elsewhere is another project and shares no socket.
        short = folder_id(self.name, str(self.state_dir), width=16)
        folders = [root / short for root in runtime_roots()]
        return next((folder for folder in folders if _fits(folder)), folders[-1])

    @property
    def record_path(self) -> Path:
        """The record of the running project."""
        return self.state_dir / RECORD

    def log_path(self, worker: str) -> Path:
        """The log of a worker."""
        return self.state_dir / "logs" / "workers" / f"{file_name(worker)}.log"

    def service_log_path(self, service: str) -> Path:
        """The log of a part of pbus: supervisor, guard, valkey."""
        return self.state_dir / "logs" / f"{service}.log"

    def log_paths(self) -> dict[str, Path]:
        """The logs of all workers that ever wrote one, by worker."""
        paths = sorted(self.log_path("x").parent.glob("*.log"))
        return {unquote(path.stem): path for path in paths if _CUT not in path.stem}

    def make_state_dir(self) -> None:
        """Create the state folder for this user alone, or make sure that it is one.

        Raises:
            ProcessError: It cannot be created, or has a pipe, a device or a folder in the place of a file.
        """
        root = self.state_dir.parent
        try:
            refuse_foreign_path(root)
            root.parent.mkdir(parents=True, exist_ok=True)
            make_private(root)
            make_private(self.state_dir)
            (self.state_dir / "logs" / "workers").mkdir(parents=True, exist_ok=True)
            refuse_odd_files(self.state_dir)
        except OSError as error:
            raise no_state(self, error) from error

    def make_runtime_dir(self) -> None:
        """Create the runtime folder for this user alone, below `/tmp`, too.

        Raises:
            ProcessError: It cannot be created, or belongs to another user.
        """
        with contextlib.suppress(OSError):  # a logout removes it, too; the next login makes it
            self.runtime_dir.parent.parent.mkdir(mode=0o700)
        make_private(self.runtime_dir.parent)
        make_private(self.runtime_dir)

    def new_record(self, session: str, bus: BusSettings, *, grace_s: float = 0.0) -> ProjectRecord:
        """Return the record of a run in this process."""
        return ProjectRecord(
            name=self.name,
            folder=str(self.folder),
            file=str(self.file),
            overrides=tuple(map(str, self.overrides)),
            session=session,
            bus=bus,
            grace_s=grace_s,
        )

    def write_record(self, record: ProjectRecord) -> None:
        """Publish the record atomically."""
        stated = msgspec.structs.replace(record, state=str(self.state_dir))
        write_record(self.record_path, stated)

    def read_record(self) -> ProjectRecord | None:
        """Return the record on disk; only the lock and the pid tell whether it is true."""
        return read_record(self.record_path)

    def clear(self) -> None:
        """Withdraw the record; in a read-only folder it stays and is not believed."""
        with contextlib.suppress(OSError):
            self.record_path.unlink()


def no_state(project: Project, error: OSError) -> ProcessError:
    """Return the error of a state folder that cannot be written."""
    return ProcessError(
        f"cannot write to the state folder {error.filename or project.state_dir}: {error.strerror}",
        hint="set XDG_STATE_HOME to a folder that you can write to",
    )


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _LONGEST_NAME)) <= MAX_SOCKET_PATH


def file_name(worker: str) -> str:
    """The name of a worker's file: its own, with what a file's name cannot have as %XX."""
    quoted = quote(worker, safe=" ")
    if len(quoted) <= _LONGEST_STEM:
        return quoted
    mark = hashlib.sha256(worker.encode()).hexdigest()[:16]
    return f"{quoted[: _LONGEST_STEM - len(mark) - len(_CUT)].rpartition('%')[0]}{_CUT}{mark}"
