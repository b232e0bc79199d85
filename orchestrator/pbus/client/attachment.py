"""From a project's name, a topology file, a URL or the environment to the bus of a project."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, Unpack

from pbus.bus.base import WorkerBus
from pbus.bus.connect import make_bus
from pbus.concurrency.waiting import first_of
from pbus.errors import NothingRunningError, StrangeFileError, UnseenProjectError
from pbus.process.project.discovery import choose_project
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord, ran_with
from pbus.settings import PROJECT_VARIABLE, BusOptions, BusSettings
from pbus.topology.paths import working_folder
from pbus.urls import mask_url

T = TypeVar("T")

DEFAULT_FILE: Final = Path("topology.yaml")
CONNECT_S: Final = 4.0  # users are told within 5 s, the start of a command included
_LOOK_S: Final = 0.5
# The last messages of a project have that many turns of the loop to get through this process.
_LAST_TURNS: Final = 10
_TURN_S: Final = 0.02


@dataclass(frozen=True)
class Attachment:
    """The address of a project's bus.

    Attributes:
        project: The project's name; the channel's where only a URL is known.
        bus: With the broker's password and the key: never shown.
        record: The supervisor on this machine; None where none is known.
        file: The topology that led here, of a project that does not run on this machine.
    """

    project: str
    bus: BusSettings
    record: ProjectRecord | None = None
    file: Path | None = None

    @property
    def shown_url(self) -> str:
        """The broker's address with its password masked."""
        return mask_url(self.bus.url or "")

    def new_bus(self) -> WorkerBus:
        """A bus to this address, not started."""
        return make_bus(self.bus)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[WorkerBus]:
        """A bus to this address, started.

        Raises:
            BusUnavailableError: It was not reached within 4 s.
        """
        bus = self.new_bus()
        await bus.start(timeout=CONNECT_S)
        try:
            yield bus
        finally:
            await bus.stop()


def find_project(
    name: str | None = None, file: str | Path | Sequence[str | Path] | None = None
) -> Attachment:
    """The project of that name or file; without both this folder's, or the only one that runs.

    A topology with a bus of its own is found by its file also when nothing runs on this machine, if
    the file is given, or was started here before with the same broker.

    Args:
        name: The name of a running project.
        file: The path of a topology; several as given to `pbus up`.

    Raises:
        NothingRunningError: There is none.
        StrangeFileError: There is a file that was neither given nor started here with its broker.
        AmbiguousProjectError: There are several.
        UnseenProjectError: It runs without a broker.
    """
    given = () if file is None else (file,) if isinstance(file, str | Path) else file
    files = tuple(map(Path, given))
    first = next(iter(files), None)
    try:
        record = choose_project(name, first, working_folder(), os.environ)
    except NothingRunningError:
        if name is not None or (first is None and is_in_worker()):
            raise
        elsewhere = _by_files(files or (DEFAULT_FILE,), is_given=bool(files))
        if elsewhere is None:
            raise
        return elsewhere
    refuse_unseen(record)
    return attachment_of(record)


def at_url(url: str, **options: Unpack[BusOptions]) -> Attachment:
    """The bus at a URL; options as of `pbus.connect()`."""
    bus = BusSettings.for_url(url, options, os.environ)
    return Attachment(bus.channel, bus)


def from_environment(environ: Mapping[str, str]) -> Attachment | None:
    """The bus that `pbus up` gave to this program; None where it gave none."""
    url, channel = environ.get("PBUS_URL"), environ.get("PBUS_CHANNEL")
    if not url or not channel:
        return None
    return Attachment(environ.get(PROJECT_VARIABLE) or channel, BusSettings.from_env(environ))


def is_in_worker() -> bool:
    """Whether this program runs in a worker's process; then its own project is meant."""
    return bool(os.environ.get(PROJECT_VARIABLE))


def refuse_unseen(record: ProjectRecord) -> None:
    """Check that other processes can reach a project.

    Raises:
        UnseenProjectError: It is one process without a broker.
    """
    if record.bus.is_in_process:
        raise UnseenProjectError(record.name, record.pid)


def attachment_of(record: ProjectRecord) -> Attachment:
    """The address of a project that runs on this machine."""
    return Attachment(record.name, record.bus, record)


def _by_files(files: Sequence[Path], *, is_given: bool) -> Attachment | None:
    file = files[0]
    if not is_given and not file.exists():
        return None
    from pbus.topology import load_topology  # noqa: PLC0415 - `pbus ps` must be quick

    topology = load_topology(files, os.environ)
    bus = topology.bus
    if bus.url is None or bus.is_in_process:
        return None
    if not is_given and not ran_with(Project.of(topology).state_dir, bus.url):
        raise StrangeFileError(file, mask_url(bus.url))  # a password may be meant for others
    return Attachment(topology.name, bus, file=file)


async def while_running(
    attachment: Attachment, main: Coroutine[Any, Any, T], look_s: float = _LOOK_S
) -> T:
    """Run a coroutine for as long as the project's supervisor on this machine runs.

    Args:
        attachment: The project.
        main: The coroutine.
        look_s: Seconds between two looks whether the supervisor runs.

    Raises:
        NothingRunningError: The supervisor ended before the coroutine.
    """
    doing, _ = await first_of(main, _wait_ended(attachment.record, look_s))
    if not doing.cancelled():
        result: T = doing.result()
        return result
    raise NothingRunningError(f"is named {attachment.project!r} any more")


async def _wait_ended(record: ProjectRecord | None, look_s: float) -> None:
    """Wait until a supervisor is gone, and what it sent before has been handled."""
    while record is None or record.is_alive:  # noqa: ASYNC110 - a process, not an event
        await asyncio.sleep(look_s)
    for _ in range(_LAST_TURNS):  # not one long sleep: it may end at once on a busy machine
        await asyncio.sleep(_TURN_S)
