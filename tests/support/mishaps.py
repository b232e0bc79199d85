"""Errors that real handlers raise and that are hard to tell of."""


class Panic(BaseException):
    """As an extension in another language raises it: no Exception."""


class MuteError(Exception):
    """Cannot say what is wrong."""

    def __str__(self) -> str:
        raise ValueError("and neither can this")


MISHAPS = {
    "panic": Panic("out of bounds"),
    "mute": MuteError(),
    "half a character": ValueError("cannot read \udcff.txt"),
    "a long story": ValueError("a" * 5_000_000),
}
