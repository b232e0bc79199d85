"""From the options -p and -f to a bus: what every verb needs that works from another terminal."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pbus.bus.base import WorkerBus
from pbus.bus.connect import connect
from pbus.bus.queues.store import QueueStats, QueueStore
from pbus.concurrency.waiting import first_of
from pbus.errors import (
    MailNotKeptError,
    NothingRunningError,
    StrangeFileError,
    UnseenProjectError,
)
from pbus.leases import Lease
from pbus.observe import HostRecord, decode_records
from pbus.process.delivery_settings import delivery_options
from pbus.process.project.discovery import choose_project
from pbus.process.project.project import Project
from pbus.process.project.record import ProjectRecord
from pbus.process.system.groups import PROJECT_VARIABLE
from pbus.topology.model import DeliverySpec
from pbus.topology.paths import working_folder
from pbus.urls import MEMORY_URL, mask_url
from pbus_cli import console
from pbus_cli.options import DEFAULT_FILE

T = TypeVar("T")

_CONNECT_S: Final = 4.0  # users are told within 5 s, the start of the command included
_LOOK_S: Final = 0.5
# What a project said at last has that many turns of the loop to get through this process.
_LAST_TURNS: Final = 10
_TURN_S: Final = 0.02


@dataclass(frozen=True)
class Attachment:
    """Where a project's messages travel.

    Attributes:
        url: With its password: never shown, and neither is the key.
        record: The supervisor on this machine; None when it runs elsewhere only.
    """

    project: str
    url: str
    channel: str
    max_message_bytes: int
    encoding: str
    delivery: DeliverySpec
    record: ProjectRecord | None
    key: str | None = None
    encrypt: bool = False

    @property
    def shown_url(self) -> str:
        """The address as it may be shown."""
        return mask_url(self.url)


def choose(name: str | None, file: Path | None) -> Attachment:
    """The project meant: by name, by file, this folder's, or the only one running.

    A topology with a bus of its own is found by its file even when nothing runs on this machine: where
    the user names it, or has started it here before.

    Raises:
        NothingRunningError: There is none.
        StrangeFileError: There is a file that the user has not named and never started here.
        AmbiguousProjectError: There are several.
        UnseenProjectError: It runs without a broker.
    """
    try:
        record = choose_project(name, file, working_folder(), os.environ)
    except NothingRunningError:
        if name is not None or (file is None and is_in_worker()):
            raise
        elsewhere = _by_file(file or DEFAULT_FILE, is_named=file is not None)
        if elsewhere is None:
            raise
        return elsewhere
    refuse_unseen(record)
    return attachment_of(record)


def is_in_worker() -> bool:
    """Whether a worker runs this command: without -p and -f that means its own project."""
    return bool(os.environ.get(PROJECT_VARIABLE))


def refuse_unseen(record: ProjectRecord) -> None:
    """See that a project has more than its own process.

    Raises:
        UnseenProjectError: It has not.
    """
    if record.url == MEMORY_URL:
        raise UnseenProjectError(record.name, record.pid)


def attachment_of(record: ProjectRecord) -> Attachment:
    """Where a project that runs on this machine sends its messages."""
    return Attachment(
        record.name,
        record.url,
        record.channel,
        record.max_message_bytes,
        record.encoding,
        record.delivery,
        record,
        record.key,
        record.encrypt,
    )


def _by_file(file: Path, *, is_named: bool) -> Attachment | None:
    if not is_named and not file.exists():
        return None
    from pbus.topology import load_topology  # noqa: PLC0415 - `pbus ps` must be quick

    topology = load_topology(file, os.environ)
    bus = topology.bus
    if bus.url is None or bus.is_in_process:
        return None
    if not is_named and not Project.of(topology).state_dir.is_dir():
        raise StrangeFileError(file, mask_url(bus.url))  # passwords are for whom their owner means
    console.note(f"{file} does not run on this machine: connecting to {mask_url(bus.url)}")
    return Attachment(
        topology.name,
        bus.url,
        bus.channel,
        bus.max_message_bytes,
        bus.encoding,
        bus.delivery,
        None,
        bus.key,
        bus.encrypt,
    )


def bus_of(attachment: Attachment) -> WorkerBus:
    """The project's bus, not started."""
    return connect(
        attachment.url,
        channel=attachment.channel,
        max_message_bytes=attachment.max_message_bytes,
        encoding=attachment.encoding,
        key=attachment.key or "",
        encrypt=attachment.encrypt,
        delivery=attachment.delivery.mode,
        delivery_options=delivery_options(attachment.delivery),
    )


@contextlib.asynccontextmanager
async def open_bus(attachment: Attachment) -> AsyncIterator[WorkerBus]:
    """The project's bus, started.

    Raises:
        BusUnavailableError: It was not reached within 4 s.
    """
    bus = bus_of(attachment)
    await bus.start(timeout=_CONNECT_S)
    try:
        yield bus
    finally:
        await bus.stop()


async def while_running(attachment: Attachment, main: Coroutine[Any, Any, T]) -> T:
    """Do something that makes sense only as long as the project runs.

    Raises:
        NothingRunningError: Its supervisor on this machine ended meanwhile.
    """
    doing, _ = await first_of(main, _wait_ended(attachment.record))
    if not doing.cancelled():
        result: T = doing.result()
        return result
    raise NothingRunningError(f"is named {attachment.project!r} any more")


async def _wait_ended(record: ProjectRecord | None) -> None:
    """Wait until a supervisor is gone, and what it sent before has been seen to."""
    while record is None or record.is_alive:  # noqa: ASYNC110 - a process, not an event
        await asyncio.sleep(_LOOK_S)
    for _ in range(_LAST_TURNS):  # not one long sleep: it may end at once on a busy machine
        await asyncio.sleep(_TURN_S)


async def read_facts(bus: WorkerBus) -> tuple[list[Lease], list[HostRecord]]:
    """What the registry and what the supervisors say, as of now."""
    leases = await bus.leases.leases()
    return leases, decode_records(await bus.leases.records())


def mail_of(bus: WorkerBus, attachment: Attachment) -> QueueStore:
    """Where the project's messages are kept.

    Raises:
        MailNotKeptError: Nowhere.
    """
    if bus.queues is None:
        raise MailNotKeptError(attachment.project)
    return bus.queues


async def read_mail(bus: WorkerBus) -> dict[str, QueueStats] | None:
    """What the mailboxes hold, by name; None where nothing is kept."""
    if bus.queues is None:
        return None
    return {report.name: report for report in await bus.queues.stats()}
