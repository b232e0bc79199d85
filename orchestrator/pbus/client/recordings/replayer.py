"""Replay of a recording: its messages are sent again, and what workers answer is collected."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from pbus.bus.subscriber import BusSubscriber
from pbus.client.project_client import Client
from pbus.client.recordings.golden import AnswersBefore, Outcome, Place, edge_counts
from pbus.client.recordings.job_script import JobScript
from pbus.client.recordings.recording import RecordedMessage
from pbus.client.recordings.replay_plan import REQUESTS, ReplayRoles, SaidMessage, said_message
from pbus.client.recordings.stand_in_worker import RecordedWorker
from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.message_tail import MessageTail
from pbus.codec import decode_opaque
from pbus.concurrency.background import running
from pbus.errors import ReplayError
from pbus.ids import new_id
from pbus.messages import BusMessage, Lane
from pbus.runner import WorkerRunner
from pbus.trace_context import root_traceparent

_JOIN_S: Final = 10.0  # for a stand-in to be ready
_QUIET_S: Final = 0.3  # without a message that is compared, after the last that was expected
_LOOK_S: Final = 0.02

BeforeEach = Callable[[SaidMessage], Awaitable[None]]


class ReplayPace(msgspec.Struct, frozen=True, kw_only=True):
    """The times of a replay.

    Attributes:
        speed: Seconds of the recording a second; 0 for no pauses.
        settle_s: Seconds without news after which an answer that is missing is waited for no longer.
        before_each: Called before each message, in place of the pauses; None keeps the times.
    """

    speed: float = 1.0
    settle_s: float = 5.0
    before_each: BeforeEach | None = None


class Replayer:
    """Sends messages of a recording again, by the names that they were sent by.

    Args:
        client: Open.
        messages: Of the recording.
        roles: Whose messages are sent, and whose are compared.

    Attributes:
        sent: The number of messages sent.
        untaken: Of those, for which the broker has no queue.
        missed: Messages that passed unseen meanwhile.
    """

    def __init__(self, client: Client, messages: Sequence[SaidMessage], roles: ReplayRoles) -> None:
        self._client = client
        self._messages = messages
        self._roles = roles
        self._traces: dict[str, str] = {}
        self._heard: list[SaidMessage] = []
        self._counts: Counter[Place] = Counter()
        self._heard_at = 0.0
        self.sent = 0
        self.untaken = 0
        self.missed = 0

    @property
    def outcome(self) -> Outcome:
        """The messages that workers sent."""
        messages = sorted(self._heard, key=lambda said: said.header.time)
        return Outcome(messages, self._roles.real)

    async def run(
        self, plan: Sequence[SaidMessage], pace: ReplayPace, golden: Sequence[SaidMessage] = ()
    ) -> None:
        """Replay.

        Args:
            plan: The messages to send, in order.
            pace: The times.
            golden: Messages of which those of workers are waited for.

        Raises:
            ReplayError: A worker cannot be stood in for.
            PbusError: A message cannot be sent.
        """
        tail = self._client.follow(Filter())
        async with tail, running(self._listen(tail)), self._joined(pace.speed):
            self._heard_at = asyncio.get_running_loop().time()
            await self._send_all(plan, pace)
            if golden:
                await self._settle(edge_counts(golden, self._roles.real), pace.settle_s)
            self.missed = tail.missed

    async def _send_all(self, plan: Sequence[SaidMessage], pace: ReplayPace) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        first = plan[0].header.time if plan else 0.0
        before = AnswersBefore(self._messages, self._roles.real)
        late: set[str] = set()  # senders who were not answered as recorded: they wait no more
        for said in plan:
            needed = before.of(said)
            if pace.before_each is not None:
                await pace.before_each(said)
            else:
                await _until_due(began, said.header.time - first, pace.speed)
                asked = loop.time()
                if said.header.source not in late and not await self._heard_all(needed, pace):
                    late.add(said.header.source)
                began += loop.time() - asked  # what follows keeps its distance
            is_taken = await self._client.bus.send(self._again(said))
            self.sent += 1
            self.untaken += not is_taken
        if pace.before_each is None and self._messages:
            await _until_due(began, self._messages[-1].header.time - first, pace.speed)

    async def _heard_all(self, needed: Counter[Place], pace: ReplayPace) -> bool:
        """Wait for answers; False where nothing came for too long."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        while not self._counts >= needed:
            left = self._heard_at + pace.settle_s - loop.time()
            if left <= 0:
                return False
            await asyncio.sleep(min(left, _LOOK_S))
        return True

    async def _settle(self, expected: Counter[Place], settle_s: float) -> None:
        """Wait until all has come that is expected, and no more comes, or nothing for so long."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        while True:
            limit = _QUIET_S if self._counts >= expected else settle_s
            left = self._heard_at + limit - loop.time()
            if left <= 0:
                return
            await asyncio.sleep(min(left, _LOOK_S))

    async def _listen(self, tail: MessageTail) -> None:
        async for message in tail:
            said = said_message(RecordedMessage.of(message, time.time()))
            if said is None:
                continue
            self._heard.append(said)
            if counts := edge_counts([said], self._roles.real):
                self._counts += counts
                self._heard_at = asyncio.get_running_loop().time()

    # Names

    @contextlib.asynccontextmanager
    async def _joined(self, speed: float) -> AsyncIterator[None]:
        """Take the places of clients and workers on the bus."""
        bus = self._client.bus
        script = JobScript(self._messages, self._roles.stand_ins)
        clients = [_Absorber(name) for name in self._roles.clients]
        workers = [RecordedWorker(name, script, speed) for name in self._roles.stand_ins]
        runner = WorkerRunner(bus=bus, handle_sigint=False, handle_sigterm=False)
        async with contextlib.AsyncExitStack() as stack:
            for client in clients:
                await bus.subscribe(client)
                stack.push_async_callback(bus.unsubscribe, client)
            if workers:
                await runner.add_workers(*workers)
                await stack.enter_async_context(running(runner.run(auto_end=False)))
                stack.push_async_callback(runner.cancel, "the replay is over")
                async with asyncio.timeout(_JOIN_S):
                    for worker in workers:
                        await runner.registry.wait_ready(worker.name, _JOIN_S)
                if runner.errors:  # such as a name that was taken meanwhile
                    raise ReplayError(runner.errors[0].error)
            yield

    def _again(self, said: SaidMessage) -> BusMessage:
        """A message as it is sent again: made now, of a trace of its own."""
        header, now = said.header, time.time()
        trace = self._traces.setdefault(header.trace_id, root_traceparent())
        fields: dict[str, Any] = {**said.fields, "id": new_id(), "time": now, "traceparent": trace}
        if header.type in REQUESTS:
            fields.pop("window", None)  # stand-ins read no events, and grant no credit
            if isinstance(fields.get("deadline"), int | float):
                fields["deadline"] = now + fields["deadline"] - header.time
        lane = Lane.SYSTEM if said.recorded.lane == "s" else Lane.DATA
        return decode_opaque(msgspec.json.encode(fields), lane)


async def _until_due(began: float, offset_s: float, speed: float) -> None:
    """Wait for the time of a message; at speed 0 not at all."""
    if speed:
        due = began + offset_s / speed
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


class _Absorber(BusSubscriber):
    """Takes what is sent to a client of the recording."""

    takes_opaque = True

    def __init__(self, name: str) -> None:
        self.name = name

    async def on_bus_message(self, message: BusMessage) -> None:
        """Do nothing."""
