"""The conversation that a message belongs to, as a sequence diagram of what the display has kept."""

from pbus.client.sequences.sequence_collector import SequenceCollector
from pbus.client.traffic.message_filter import Filter
from pbus_cli.views.board.board_snapshot import Snapshot
from pbus_cli.views.sequences.sequence_text import sequence_lines
from pbus_cli.views.traffic import Passed


def conversation_lines(passed: Passed, snapshot: Snapshot) -> list[str]:
    """The messages of its trace, with the ends and starts of workers between them.

    Args:
        passed: The message.
        snapshot: Has the messages that were kept.
    """
    if passed.seen is None:
        return []
    collector = SequenceCollector(Filter(traces=(passed.seen.trace_id,)))
    latest = [one for folded in snapshot.folded for one in folded.latest]
    kept = [one.seen for one in (*snapshot.messages, *latest, passed) if one.seen is not None]
    unique = {id(message): message for message in kept}
    for message in sorted(unique.values(), key=lambda message: message.time):
        collector.add(message)
    return sequence_lines(collector.diagram())
