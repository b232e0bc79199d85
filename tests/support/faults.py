"""Errors that real handlers raise and that are hard to tell of."""


class Panic(BaseException):
    """As an extension in another language raises it: no Exception."""


class MuteError(Exception):
    """Cannot say what is wrong."""

    def __str__(self) -> str:
        raise ValueError("and neither can this")


class WordlessError(Exception):
    """Ends the program when it is asked what is wrong."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


MISHAPS = {
    "exit": SystemExit(2),
    "interrupt": KeyboardInterrupt("by hand"),
    "closed": GeneratorExit(),
    "end of a loop": StopAsyncIteration(),
    "too deep": RecursionError("maximum recursion depth exceeded"),
    "out of memory": MemoryError(),
    "several": BaseExceptionGroup("two", [SystemExit(1), ValueError("no")]),
    "wordless": WordlessError(),
    "panic": Panic("out of bounds"),
    "mute": MuteError(),
    "half a character": ValueError("cannot read \udcff.txt"),
    "a long story": ValueError("a" * 5_000_000),
}
