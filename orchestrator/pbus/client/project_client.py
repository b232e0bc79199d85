"""Client: a program's way to the workers of a project, without being one of them."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pbus.client.addresses import new_name
from pbus.client.attachment import CONNECT_S, Attachment, at_url, find_project, from_environment
from pbus.client.job_calls import JobCalls
from pbus.client.status import ProjectStatus, WorkerStatus, read_status
from pbus.client.targets import FIND_S
from pbus.client.traffic.message_calls import MessageCalls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Unpack

    from pbus.client.control.worker_control import Control
    from pbus.client.stored_messages import DeadLetters
    from pbus.client.traffic.edge_stats import ProjectStats
    from pbus.client.traffic.message_filter import Filter, TailTerms
    from pbus.client.traffic.state_tail import StateFollower, StateTail
    from pbus.client.traffic.tails.timeline import Timeline
    from pbus.settings import BusOptions


class Client(JobCalls, MessageCalls):
    """Asks workers for jobs, sends messages, and looks at and controls a project.

    It has an address of its own and no place in the registry: `pbus ps` does not show it. It belongs
    to the event loop it is used in; any number of tasks may use it at once. While the broker is away
    it reconnects by itself, and calls wait or raise BusUnavailableError.

    Args:
        bus: The bus; started and stopped by the client, unless it runs already.
        project: The project's name, for texts.
        attachment: Where the bus comes from, if that is known.
        find_timeout: As of `connect()`.
        connect_timeout: As of `connect()`.

    Attributes:
        name: Its address: the source of its messages.
        project: The project's name.
        bus: The bus it uses.
        attachment: See there.
    """

    _states: StateFollower | None = None

    def events(self) -> StateTail:
        """Follow the state changes of all workers: ``async for change in client.events(): ...``.

        Raises:
            ClientClosedError: The client is not open.
        """
        from pbus.client.traffic.state_tail import StateFollower, StateTail

        bus = self._open_bus
        self._states = self._states or self._owned(StateFollower(bus))
        return self._owned(StateTail(self._states))

    def timeline(
        self, *, logs: bool = True, events: bool = True, **terms: Unpack[TailTerms]
    ) -> Timeline:
        """Follow messages, log lines and state changes, in the order of their times.

        Args:
            logs: Log lines too, of workers that `source` and `target` name, where these are given.
            events: State changes, likewise.
            terms: As of tail(); the pattern is looked for in lines and changes, too.

        Raises:
            LogsElsewhereError: The supervisor does not run on this machine.
            ClientClosedError: The client is not open.
        """
        from pbus.client.traffic.message_filter import filter_of

        return self.follow_with(filter_of(terms), logs=logs, events=events)

    def follow_with(
        self, chosen: Filter, *, logs: bool, events: bool, pairs: bool = False
    ) -> Timeline:
        """Follow messages or pairs together with log lines and state changes, as timeline().

        Where state changes are followed, the messages that tell them are left out, unless types are
        named.
        """
        from pbus.client.traffic.tails.log_tail import follow_logs
        from pbus.client.traffic.tails.timeline import Timeline
        from pbus.errors import LogsElsewhereError

        record = None if self.attachment is None else self.attachment.record
        if logs and record is None:
            raise LogsElsewhereError(self.project)
        lines = follow_logs(self._open_bus, record) if logs and record is not None else None
        changes = self.events() if events else None
        if events and not chosen.types:
            chosen = replace(chosen, excluded=(*chosen.excluded, "type=BusWorkerStateMessage"))
        tail = self.follow_pairs(chosen) if pairs else self.follow(chosen)
        return self._owned(Timeline(tail, changes, lines, chosen))

    async def status(self) -> ProjectStatus:
        """All workers with their queues, and what else is to be known.

        Raises:
            BusUnavailableError: The broker does not answer.
        """
        return await read_status(self._open_bus, self.project)

    async def stats(self, *workers: str) -> ProjectStats:
        """Messages and jobs by edge, as the workers counted them: rates, times, errors, losses.

        Args:
            workers: Only edges from or to these workers or groups; all where none is given.

        Raises:
            BusUnavailableError: The broker does not answer.
            UnknownNameError: A name is of no worker that runs or was counted.
        """
        from pbus.client.traffic.edge_stats import read_stats

        return await read_stats(self._open_bus, self.project, workers)

    async def workers(self, *, ready: bool = False) -> list[WorkerStatus]:
        """The workers: state, process, counters; the fields are those of `pbus ps --json`.

        Args:
            ready: Only those that are ready.

        Raises:
            BusUnavailableError: The broker does not answer.
        """
        return [one for one in (await self.status()).workers if one.ready or not ready]

    async def wait_ready(self, *workers: str, timeout: float = 60.0) -> list[str]:  # noqa: ASYNC109 - raises an error of its own
        """Wait until workers are ready, all replicas of a group among them.

        Args:
            workers: Names; all workers of the project when none is given.
            timeout: Seconds to wait.

        Returns:
            The workers that are ready, or have done their work and left.

        Raises:
            StartupError: The supervisor has given one up.
            NotReadyError: Some are not ready in time.
        """
        from pbus.client.readiness import wait_ready

        return await wait_ready(self._open_bus, workers, timeout)

    async def purge(self, worker: str) -> int:
        """Drop the stored messages that wait for a worker or a group; those in hand stay.

        Returns:
            How many.

        Raises:
            UnknownNameError: Nothing has a queue of that name.
            NoStoredMessagesError: The project stores no messages.
        """
        from pbus.client.stored_messages import purge, store_of

        return await purge(store_of(self._open_bus, self.project), worker)

    @property
    def control(self) -> Control:
        """Starts, stops and restarts workers.

        Raises:
            ClientClosedError: The client is not open.
        """
        from pbus.client.control.worker_control import Control

        record = None if self.attachment is None else self.attachment.record
        return Control(self._open_bus, new_name, None if record is None else record.session)

    @property
    def dead_letters(self) -> DeadLetters:
        """The messages that were tried too often.

        Raises:
            ClientClosedError: The client is not open.
        """
        from pbus.client.stored_messages import DeadLetters

        return DeadLetters(self._open_bus, self.project)


def connect(
    project: str | None = None,
    *,
    file: str | Path | Sequence[str | Path] | None = None,
    url: str | None = None,
    find_timeout: float | None = FIND_S,
    connect_timeout: float = CONNECT_S,
    **options: Unpack[BusOptions],
) -> Client:
    """A client of a project: ``async with pbus.client.connect(project="shop") as client: ...``.

    Without project, file and url it is the bus that `pbus up` gave to this program; outside of a
    worker the project of this folder's topology.yaml, or the only one that runs here.

    Args:
        project: The name of a project that runs on this machine.
        file: The path of its topology, or those given to `pbus up`; one with a bus of its own may run elsewhere.
        url: The address of a bus.
        find_timeout: Seconds that a worker gets to be registered before a job or a message for it
            fails; None: as long as the job's timeout.
        connect_timeout: Seconds until the broker has to have answered.
        options: With url only, as of `pbus.connect()`: channel, key, encrypt, encoding, delivery,
            delivery_options, max_message_bytes, send_timeout.

    Raises:
        NothingRunningError: No project matches.
        AmbiguousProjectError: Several do.
        UnseenProjectError: It runs in one process, without a broker.
        StrangeFileError: There is only a topology that was neither given nor started here before.
        TopologyError: The topology has mistakes.
        BusUrlError: No backend has the URL's scheme.
        TypeError: Arguments that exclude each other.
    """
    if url is not None and (project is not None or file is not None):
        raise TypeError("give url, or project and file, not both")
    if url is None and options:
        raise TypeError(f"{', '.join(options)} can be given with url only")
    if url is not None:
        attachment: Attachment | None = at_url(url, **options)
    else:
        attachment = None if project or file else from_environment(os.environ)
    return Client.at(
        attachment or find_project(project, file),
        find_timeout=find_timeout,
        connect_timeout=connect_timeout,
        is_traced=True,
    )
