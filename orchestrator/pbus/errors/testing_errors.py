"""Errors of pbus.testing."""

from pbus.errors.base_error import PbusError


class NotSeenError(PbusError, AssertionError):
    """In a test, an expected event did not happen in time."""

    def __init__(self, what: str, waited_s: float, instead: str | None = None) -> None:
        super().__init__(f"{what} within {waited_s:g} s", hint=instead)
        self.waited_s = waited_s
