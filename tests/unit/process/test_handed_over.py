"""Stored messages that a program has in hand."""

import asyncio

from pbus.process.stdio import handed_over
from pbus.process.stdio.handed_over import HandedOver
from support.waiting import run, until


class Reader:
    """A program that has read so many bytes, and counts how often that was looked at."""

    def __init__(self):
        self.position, self.looks, self.code = 0, 0, None

    @property
    def taken(self):
        self.looks += 1
        return self.position

    async def looked_at(self, times=5):
        seen = self.looks
        await until(lambda: self.looks >= seen + times)


class Stored:
    """A delivery that notes what became of it."""

    def __init__(self):
        self.ends = []

    def defer_ack(self):
        self.ends.append("deferred")

    def settle(self, error=None):
        self.ends.append("settled" if error is None else str(error))

    def requeue(self):
        self.ends.append("requeued")


async def watched(program, work):
    """What becomes of three messages while their settlement runs."""
    hands, stored = HandedOver(program), [Stored() for _ in range(3)]
    for number, delivery in enumerate(stored):
        hands.add(f"m{number}", delivery, 10 * (number + 1))
    running = asyncio.create_task(hands.run())
    try:
        await work(hands, [delivery.ends for delivery in stored])
    finally:
        running.cancel()
        await asyncio.wait({running})
    return [delivery.ends[1:] for delivery in stored]


def test_what_was_read_counts_as_handled_after_a_while(monkeypatch):
    """What the program has not read yet stays in hand."""
    monkeypatch.setattr(handed_over, "_LOOK_S", 0.001)
    monkeypatch.setattr(handed_over, "_IN_HAND_S", 0.0)
    program = Reader()

    async def work(hands, ends):
        await program.looked_at()
        assert [["deferred"]] * 3 == ends
        program.position = 25
        await until(lambda: "settled" in ends[1])
        program.code = 1  # it ends: the last one is for its successor
        program.position = 30
        await program.looked_at()
        hands.requeue_all()

    assert [["settled"], ["settled"], ["requeued"]] == run(watched(program, work))


def test_program_that_reads_on_has_handled_what_it_read_before(monkeypatch):
    """A busy one is not waited for: only what it read last stays in hand."""
    monkeypatch.setattr(handed_over, "_LOOK_S", 0.001)
    monkeypatch.setattr(handed_over, "_IN_HAND_S", 3600.0)
    program = Reader()

    async def work(hands, ends):
        program.position = 15  # the first, and half of the second
        await program.looked_at()
        assert [["deferred"]] * 3 == ends
        program.position = 20
        await until(lambda: "settled" in ends[0])
        await program.looked_at()
        assert ["deferred"] == ends[1]
        program.position = 30
        await until(lambda: "settled" in ends[1])
        await program.looked_at()
        fresh = Stored()
        hands.add("m3", fresh, 40)  # looks, too
        program.position = 40
        hands.add("m4", Stored(), 50)
        assert (["deferred", "settled"], ["deferred"]) == (ends[2], fresh.ends)
        hands.requeue_all()
        assert ["deferred", "requeued"] == fresh.ends

    assert [["settled"]] * 3 == run(watched(program, work))


def test_program_that_tells_is_believed(monkeypatch):
    """Then only its word counts, in any order; a failure is a retry."""
    monkeypatch.setattr(handed_over, "_LOOK_S", 0.001)
    monkeypatch.setattr(handed_over, "_IN_HAND_S", 0.0)
    program = Reader()

    async def work(hands, ends):
        hands.is_told, program.position = True, 30
        await program.looked_at(1)
        assert [["deferred"]] * 3 == ends
        assert hands.settle("m1")
        assert not hands.settle("m1")
        assert not hands.settle("unknown")
        assert hands.settle("m0", ValueError("no"))
        hands.settle_all()

    assert [["no"], ["settled"], ["settled"]] == run(watched(program, work))
