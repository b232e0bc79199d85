"""The kept past of a project in the order of time: messages or pairs, log lines, state changes."""

import heapq
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from pbus.client.traffic.kept_traffic import PastMessage, read_past
from pbus.client.traffic.message_filter import Filter
from pbus.client.traffic.message_tail import TailMessage
from pbus.client.traffic.tails.message_pairs import MessagePair, PairChoice, Pairing
from pbus.client.traffic.tails.timeline import takes_other
from pbus.process.project.history.run_history import StateEvent, read_events
from pbus.process.project.log_files import LogLine
from pbus.process.project.log_reader import iter_lines
from pbus.process.project.project import Project

KeptEntry: TypeAlias = TailMessage | MessagePair | LogLine | StateEvent


class PastEntry(msgspec.Struct, frozen=True):
    """Something of the past.

    Attributes:
        at: When it was seen or written, Unix seconds by the clock of the supervisor's machine.
        missed: Messages that passed unseen before it.
        entry: A header, a pair of them, a log line or a state change; None at the end, where the
            last messages passed unseen.
    """

    at: float
    missed: int
    entry: KeptEntry | None


class PastTimeline:
    """Reads what is kept of a project.

    Args:
        project: Whose.
        chosen: Of messages what `read_past` takes. Sources and targets choose the workers of lines and
            changes, the pattern is looked for in their texts.
        takes: Whether a time is one that is meant.
        on_damage: Called for each damaged line of a history.
        kinds: "pairs": requests with their answers in place of messages; "logs" and "events": with log
            lines, with state changes.
    """

    def __init__(
        self,
        project: Project,
        chosen: Filter,
        takes: Callable[[float], bool],
        on_damage: Callable[[], object],
        kinds: frozenset[str] = frozenset(),
    ) -> None:
        self._project = project
        self._chosen = chosen
        self._takes = takes
        self._on_damage = on_damage
        self._kinds = kinds

    def __iter__(self) -> Iterator[PastEntry]:
        """All of it, oldest first.

        Raises:
            OSError: A file cannot be read.
        """
        kinds = self._kinds
        origins = [self._pairs() if "pairs" in kinds else self._messages()]
        origins += [self._lines()] if "logs" in kinds else []
        origins += [self._changes()] if "events" in kinds else []
        yield from heapq.merge(*origins, key=lambda one: one.at)

    def _messages(self) -> Iterator[PastEntry]:
        for one in read_past(self._project, self._chosen, self._takes, self._on_damage):
            yield PastEntry(one.at, one.missed, one.message)

    def _pairs(self) -> Iterator[PastEntry]:
        """Pairs when their answer was seen; jobs without one come last."""
        pairing, choice, missed, at = Pairing(), PairChoice(self._chosen), 0, 0.0
        for one in self._all_messages():
            missed, at = missed + one.missed, one.at
            pair = None if one.message is None else pairing.take(one.message)
            if pair is not None and choice.takes(pair):
                yield PastEntry(at, missed, pair)
                missed = 0
        missed += pairing.fallen
        for pair in filter(choice.takes, pairing.drain()):
            yield PastEntry(at, missed, pair)
            missed = 0
        if missed:
            yield PastEntry(at, missed, None)

    def _all_messages(self) -> Iterator[PastMessage]:
        return read_past(self._project, Filter(), self._takes, self._on_damage)

    def _lines(self) -> Iterator[PastEntry]:
        for line in iter_lines(self._project.log_paths()):
            if self._takes(line.time) and takes_other(self._chosen, line.worker, line.text):
                yield PastEntry(line.time, 0, line)

    def _changes(self) -> Iterator[PastEntry]:
        for event in read_events(self._project, self._on_damage):
            text = f"{event.state} {event.detail}"
            if self._takes(event.time) and takes_other(self._chosen, event.worker, text):
                yield PastEntry(event.time, 0, event)
