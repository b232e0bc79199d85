"""Mistakes in worker and message classes: told where they are defined, or else at the first use."""

import asyncio
import functools
import subprocess
import sys

import pytest

from pbus import AsyncQueueBus, BaseWorker, BusDataMessage, BusLocalMessage, WorkerRunner, job
from pbus.codec import decode_message, encode_message
from pbus.errors import (
    DuplicateTypeError,
    HandlerDefinitionError,
    MessageDecodeError,
    MessageDefinitionError,
)
from pbus.frames import Frame
from pbus.handlers import worker_ready
from pbus.messages import BusFrameMessage
from support.waiting import PATIENCE_S, run

FREE = """
    add answer ask begin cache calls client clients close config context count data drain end
    find finish flush handle history index items job leave lock log loop members messages model
    name names open queue remove replicas reply reset result run save search send session
    settings spawn start state stop task tasks timer tools total transcript
"""


async def nothing(self, *values):
    """Do nothing."""


def plain(self, message=None):
    """Not async."""


async def pieces(self, message=None):
    yield message


def named(function, name):
    function = functools.update_wrapper(
        type(function)(function.__code__, function.__globals__), function
    )
    del function.__wrapped__
    function.__name__ = name
    return function


def marked(mark=None):
    """A new marked method."""
    return (mark or JOB)(named(nothing, "nothing"))


JOB = job(name="x")
BAD = {
    "job like a hook": ({"start": marked()}, "start.*rename the method"),
    "job like a method": ({"send_bus_message": marked()}, "rename the method"),
    "job like an attribute": ({"sent": marked()}, "rename the method"),
    "job like an internal": ({"_run_start": marked()}, "rename the method"),
    "ready handler like a hook": ({"on_worker_ready": marked(worker_ready(name="x"))}, "rename"),
    "internal method": ({"_open_group": nothing}, "'_open_group' for itself"),
    "internal attribute": ({"_worker_tasks": []}, "'_worker_tasks' for itself"),
    "method under an attribute": ({"parent": plain}, "hides it"),
    "property under an attribute": ({"name": property(plain)}, "hides it"),
    "method replaced": ({"run": nothing}, r"or call super\(\).run"),
    "method made data": ({"children": []}, "'children' for itself"),
    "plain hook": ({"on_activated": named(plain, "on_activated")}, "write it as 'async def'"),
    "plain start": ({"start": named(plain, "start")}, "write it as 'async def'"),
    "hook with yield": ({"on_bus_message": named(pieces, "on_bus_message")}, "without yield"),
    "async where plain": (
        {"accepts_bus_message": named(nothing, "accepts_bus_message")},
        "plain 'def'",
    ),
    "hook that is no function": ({"on_job_update": 5}, "no method"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_class_is_refused(case):
    """What pbus needs for itself, and hooks that it cannot call, are errors of the definition."""
    members, problem = BAD[case]
    with pytest.raises(HandlerDefinitionError, match=problem):
        type("Bad", (BaseWorker,), members)
    with pytest.raises(HandlerDefinitionError, match=problem):
        type("Bad", (type("Mixin", (), members), BaseWorker), {})


def test_hook_with_wrong_arguments_is_refused():
    """A hook takes what it is called with."""
    with pytest.raises(HandlerDefinitionError, match="self, args, and that fails"):

        class Bad(BaseWorker):
            async def on_activated(self):
                """Takes nothing."""


def test_job_with_yield_is_told_how_to_stream():
    """An async generator is no handler; streaming is done otherwise."""
    with pytest.raises(HandlerDefinitionError, match="send_job_stream_data"):
        JOB(pieces)
    with pytest.raises(HandlerDefinitionError, match="no text"):
        job(name=5)(nothing)


class Mixin:
    """Comes before BaseWorker."""

    async def start(self):
        await super().start()

    def _mine(self):
        """Its own."""


class Good(Mixin, BaseWorker):
    """Overrides hooks, extends methods, has names of its own, decorators and static methods."""

    EVENTS = frozenset({"on_finished"})
    _own = 1
    on_deactivated = functools.partialmethod(nothing)

    async def send_bus_message(self, message):
        await super().send_bus_message(message)

    @property
    def job_names(self):
        return ("a",)

    async def on_activated(self, args=None, *more):
        """More than is needed."""

    @staticmethod
    async def on_bus_message(message):
        """Static."""

    @JOB
    async def find(self, request):
        """A job."""


def test_good_classes_are_let_be():
    """What does no harm is no error."""

    class Better(Good):
        async def find(self, request):
            """Overridden."""

    assert ("a",) == Better("good").job_names


@pytest.mark.parametrize("name", ["_worker_tasks", "_registry", "_bus_subscription", "_children"])
@pytest.mark.parametrize("when", ["constructor", "start"])
def test_replaced_attribute_is_told(name, when):
    """A worker whose code sets an attribute of BaseWorker's is refused, or fails, with its name."""

    class Setter(BaseWorker):
        def __init__(self):
            super().__init__("setter")
            if when == "constructor":
                setattr(self, name, {})

        async def start(self):
            setattr(self, name, {})

    async def main():
        runner = WorkerRunner(bus=AsyncQueueBus())
        if when == "constructor":
            with pytest.raises(HandlerDefinitionError, match=rf"Setter: self\.{name}: .*rename it"):
                await runner.add_workers(Setter())
            return
        await runner.add_workers(Setter())
        async with asyncio.timeout(PATIENCE_S):
            await runner.run()
        (error,) = runner.errors
        assert f"self.{name}" in error.error

    run(main())


# Messages


def test_fields_that_say_how_to_travel_are_refused():
    """A field called `lane` took the lane's place."""
    with pytest.raises(MessageDefinitionError, match="'lane' says how"):

        class BadLane(BusDataMessage):
            lane: str

    class BadLane(BusDataMessage):
        """The refused one left nothing behind."""

    class Box(BusDataMessage, tag="box"):
        """Another."""

    with pytest.raises(MessageDefinitionError, match="more than one"):

        class BadUnion(BusDataMessage):
            which: Box | list[int] | tuple[int, ...]

    class GoodLocal(BusDataMessage, BusLocalMessage):
        which: list[int] | tuple[int, ...]


class Unresolved(BusDataMessage):
    """Names what is nowhere."""

    amount: "Decimal"  # noqa: F821 - that is the point


class UnresolvedFrame(Frame):
    """Likewise."""

    amount: "Decimal | None" = None  # noqa: F821 - likewise


def test_annotation_that_cannot_be_resolved():
    """Sending and receiving say which field's type is not there, and where it should be."""
    problem = r"the type of Unresolved.amount names 'Decimal'.*module .*test_definition"
    with pytest.raises(MessageDefinitionError, match=problem):
        encode_message(Unresolved(source="a", amount=1))
    line = b'{"type":"Unresolved","source":"a","amount":1}'
    for _ in range(2):
        with pytest.raises(MessageDecodeError, match=problem):
            decode_message(line)
    carried = BusFrameMessage(source="a", frame=UnresolvedFrame())
    with pytest.raises(MessageDefinitionError, match=r"UnresolvedFrame.amount names 'Decimal'"):
        encode_message(carried)
    framed = (
        b'{"type":"BusFrameMessage","source":"a","direction":1,"frame":{"type":"UnresolvedFrame"}}'
    )
    with pytest.raises(MessageDecodeError):
        decode_message(framed)


class Touchy(BusDataMessage):
    """Its __post_init__ raises what it is told to."""

    how: str = ""

    def __post_init__(self):
        if self.how:
            raise HOWS[self.how]


HOWS = {
    "key": KeyError("price"),
    "value": ValueError("too much"),
    "exit": SystemExit(1),
    "closed": GeneratorExit(),
    "interrupt": KeyboardInterrupt(),
    "stop": StopIteration(),
    "several": BaseExceptionGroup("two", [SystemExit(1)]),
}


@pytest.mark.parametrize("how", HOWS)
def test_post_init_that_raises(how):
    """A received class that does not like its values is refused, whatever it raises."""
    line = encode_message(Touchy(source="a")).replace(b"}", b',"how":"%s"}' % how.encode())
    for _ in range(2):
        with pytest.raises(MessageDecodeError, match="a Touchy from the channel was refused: "):
            decode_message(line)
        decode_message(encode_message(Touchy(source="a")))  # then by the quick way, too


def test_file_loaded_twice(tmp_path):
    """A program that is imported by its own parts is told so, and what to do."""
    (tmp_path / "shop.py").write_text(
        "from pbus import BusDataMessage\nclass Order(BusDataMessage):\n    pass\nimport part\n"
    )
    (tmp_path / "part.py").write_text("import shop\n")
    done = subprocess.run(
        [sys.executable, "shop.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert 1 == done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "pbus.errors.DuplicateTypeError: message type 'Order' is already defined"
    )
    assert f"{tmp_path.resolve() / 'shop.py'} was loaded twice" in last
    assert "a module of their own" in last


def test_namesakes_are_to_be_renamed():
    """Two classes of one name elsewhere are two classes."""
    with pytest.raises(DuplicateTypeError, match="rename one of the two classes"):
        type(BusDataMessage)("BusFrameMessage", (BusDataMessage,), {"__module__": __name__})


@pytest.mark.parametrize("name", FREE.split())
def test_plain_private_names_are_free(name):
    """What workers call their own methods is no name of ours."""
    assert issubclass(type("Own", (BaseWorker,), {f"_{name}": lambda _self: None}), BaseWorker)
