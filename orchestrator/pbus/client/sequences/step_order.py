"""The order of the steps of a diagram."""

from collections.abc import Iterable

import msgspec

from pbus.client.sequences.sequence_diagram import Arrow, Step


class SeenStep(msgspec.Struct, frozen=True):
    """A step and its place among the others: a message comes after that whose handler sent it.

    Attributes:
        span: Of a message; "" of a mark.
        parent: The span of the message because of which it was sent.
    """

    step: Step
    span: str = ""
    parent: str | None = None


def ordered_steps(seen: Iterable[SeenStep]) -> list[Step]:
    """Steps by their times; clocks differ, so a message never comes before what caused it.

    The order of arrival says less: messages of different processes overtake each other on the way.
    """
    steps = list(seen)
    by_span = {one.span: one for one in steps if one.span}
    known: dict[str, tuple[float, int]] = {}  # by span: the time, and how many causes come before

    def place(one: SeenStep) -> tuple[float, int]:
        chain: dict[str, SeenStep] = {}
        at: SeenStep | None = one
        while at is not None and at.span not in known and at.span not in chain:
            chain[at.span] = at
            at = by_span.get(at.parent or "")
        time, depth = known.get(at.span, (0.0, 0)) if at is not None else (0.0, 0)
        for link in reversed(chain.values()):
            time, depth = max(link.step.time, time), depth + 1
            known[link.span] = (time, depth)
        return known[one.span]

    def key(one: SeenStep) -> tuple[float, int]:
        return place(one) if one.span else (one.step.time, 0)

    return [one.step for one in sorted(steps, key=key)]


def folded_steps(steps: list[Step]) -> tuple[Step, ...]:
    """The steps, with messages of one kind in a row as one."""
    folded: list[Step] = []
    for step in steps:
        last = folded[-1] if folded else None
        if isinstance(last, Arrow) and isinstance(step, Arrow) and _is_like(last, step):
            folded[-1] = msgspec.structs.replace(last, count=last.count + 1)
        else:
            folded.append(step)
    return tuple(folded)


def _is_like(first: Arrow, second: Arrow) -> bool:
    return (first.source, first.target, first.label, first.is_reached) == (
        second.source, second.target, second.label, second.is_reached
    )  # fmt: skip
