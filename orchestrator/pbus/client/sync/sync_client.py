"""The client for programs without an event loop: scripts, notebooks, threads of a web server.

Its loop runs in a thread of its own, so it works where a loop runs already, as in a notebook. Every
call has a deadline.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from pbus.client.attachment import CONNECT_S
from pbus.client.project_client import connect
from pbus.client.status import ProjectStatus, WorkerStatus
from pbus.client.sync.calls import CALL_S, SyncJobCalls
from pbus.client.sync.parts import SyncControl, SyncDeadLetters, SyncTail
from pbus.client.targets import FIND_S
from pbus.client.traffic.edge_stats import ProjectStats
from pbus.client.traffic.message_filter import TailTerms
from pbus.client.traffic.message_tail import TailMessage
from pbus.client.traffic.tails.message_pairs import MessagePair
from pbus.client.traffic.tails.timeline import Entry
from pbus.messages import BusWorkerStateMessage
from pbus.settings import BusOptions


class SyncClient(SyncJobCalls):
    """Client for programs without an event loop; see there for what its methods do.

    Any number of threads may use it at once. It is closed by close(), by leaving its ``with`` block,
    or with the last reference to it.

    Args:
        make: Makes the client, in the loop's thread.
        call_timeout: Seconds that a call may take which has no timeout of its own.
    """

    def send(
        self,
        target: str | None,
        type: str,  # noqa: A002 - as on the wire
        fields: Mapping[str, Any] | None = None,
        *,
        urgent: bool = False,
        key: str | None = None,
    ) -> list[str | None]:
        """Send a message; returns the workers it was sent to."""
        client = self._client
        return self._call("send", lambda: client.send(target, type, fields, urgent=urgent, key=key))

    def send_text(
        self, target: str | None, text: str, *, key: str | None = None
    ) -> list[str | None]:
        """Send a text frame; returns the workers it was sent to."""
        client = self._client
        return self._call("send_text", lambda: client.send_text(target, text, key=key))

    def tail(self, *, timeout: float, **terms: Unpack[TailTerms]) -> SyncTail[TailMessage]:
        """Follow messages for so many seconds: ``for message in client.tail(timeout=10): ...``."""
        return SyncTail(self._call, self._client.tail(**terms), timeout)

    def pairs(self, *, timeout: float, **terms: Unpack[TailTerms]) -> SyncTail[MessagePair]:
        """Follow requests with their answers for so many seconds."""
        return SyncTail(self._call, self._client.pairs(**terms), timeout)

    def timeline(
        self,
        *,
        timeout: float,
        logs: bool = True,
        events: bool = True,
        **terms: Unpack[TailTerms],
    ) -> SyncTail[Entry]:
        """Follow messages, log lines and state changes for so many seconds."""
        timeline = self._client.timeline(logs=logs, events=events, **terms)
        return SyncTail(self._call, timeline, timeout)

    def events(self, *, timeout: float) -> SyncTail[BusWorkerStateMessage]:
        """Follow state changes for so many seconds."""
        return SyncTail(self._call, self._client.events(), timeout)

    def status(self) -> ProjectStatus:
        """All workers with their queues, and what else is to be known."""
        return self._call("status", self._client.status)

    def stats(self, *workers: str) -> ProjectStats:
        """As of `Client`."""
        return self._call("stats", lambda: self._client.stats(*workers))

    def workers(self, *, ready: bool = False) -> list[WorkerStatus]:
        """The workers: state, process, counters."""
        client = self._client
        return self._call("workers", lambda: client.workers(ready=ready))

    def wait_ready(self, *workers: str, timeout: float = 60.0) -> list[str]:
        """Wait until workers are ready; returns them."""
        client = self._client
        return self._call(
            "wait_ready", lambda: client.wait_ready(*workers, timeout=timeout), timeout
        )

    def purge(self, worker: str) -> int:
        """Drop the stored messages that wait for a worker or a group; returns how many."""
        client = self._client
        return self._call("purge", lambda: client.purge(worker))

    @property
    def control(self) -> SyncControl:
        """Starts, stops and restarts workers."""
        return SyncControl(self._call, self._client)

    @property
    def dead_letters(self) -> SyncDeadLetters:
        """The messages that were tried too often."""
        return SyncDeadLetters(self._call, self._client)


def connect_sync(
    project: str | None = None,
    *,
    file: str | Path | Sequence[str | Path] | None = None,
    url: str | None = None,
    find_timeout: float | None = FIND_S,
    connect_timeout: float = CONNECT_S,
    call_timeout: float = CALL_S,
    **options: Unpack[BusOptions],
) -> SyncClient:
    """A client for programs without an event loop, connected; may be used as a ``with`` block.

    Args:
        project: As of `connect()`; file, url and options likewise.
        file: See there.
        url: See there.
        find_timeout: See there.
        connect_timeout: See there.
        call_timeout: Seconds that a call may take which has no timeout of its own.
        options: See there.

    Raises:
        PbusError: As `connect()`.
        BusUnavailableError: The broker did not answer in time.
    """
    return SyncClient(
        lambda: connect(
            project,
            file=file,
            url=url,
            find_timeout=find_timeout,
            connect_timeout=connect_timeout,
            **options,
        ),
        call_timeout=call_timeout,
    )
