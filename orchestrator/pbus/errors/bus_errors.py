"""Errors of the bus and of clients."""

from collections.abc import Sequence

from pbus.errors.base_error import PbusError

_KEY_HINT = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


class BusError(PbusError):
    """A bus cannot do what was asked of it."""


class BusClosedError(BusError):
    """The bus was stopped (or never started) and cannot send."""

    def __init__(self, state: str = "stopped") -> None:
        super().__init__(
            f"the bus is {state}",
            hint="use `async with bus:` or await bus.start() first, and send before stop()"
            " (WorkerRunner.run() does both)",
        )


class BusLoopError(BusError):
    """A bus is used in another event loop than the one in which it was started."""

    def __init__(self) -> None:
        super().__init__(
            "the bus belongs to another event loop, of an earlier asyncio.run()",
            hint="make a new bus (and runner) within each asyncio.run(), or call it once for all",
        )


class BusFullError(BusError):
    """A receiver (or the broker) did not take messages for the whole send timeout."""

    def __init__(self, address: str, waited_s: float, reason: str) -> None:
        super().__init__(
            f"no room to send to {address} for {waited_s:g} s: {reason}",
            hint="the receiver is slower than the sender; slow down, add replicas, or raise send_timeout",
        )
        self.address = address
        self.waited_s = waited_s


class BatchError(BusError):
    """Some messages of a batch were not sent; the others were.

    Attributes:
        failures: The error of each, by its position in the batch.
    """

    def __init__(self, failures: dict[int, PbusError], count: int) -> None:
        position, first = next(iter(failures.items()))
        super().__init__(
            f"{len(failures):,} of {count:,} messages of a batch were not sent; "
            f"the first, at {position}: {first}",
            hint="`failures` has the error of each by its position; send those again",
        )
        self.failures = failures


class LeaseTooLargeError(BusError):
    """A lease or a record is larger than the registry accepts."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} is {size:,} bytes and the registry takes at most {limit:,}",
            hint="have fewer job names in one worker, or fewer workers in one project",
        )
        self.size = size
        self.limit = limit


class BackendMissingError(BusError):
    """A bus needs a package that is not installed."""

    def __init__(self, backend: str, module: str, requirement: str) -> None:
        super().__init__(
            f"the {backend} bus needs the Python module {module!r}, which is not installed",
            hint=f"pip install '{requirement}'",
        )
        self.backend = backend
        self.module = module


class BusUrlError(BusError):
    """A bus URL names no backend that pbus has."""

    def __init__(self, url: str, schemes: Sequence[str]) -> None:
        super().__init__(
            f"{url!r} is no bus URL that pbus knows", hint=f"use one of {', '.join(schemes)}"
        )
        self.url = url


class BusKeyError(BusError):
    """A key of the bus cannot be used; its text is never part of this."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the key of the bus cannot be used: {problem}", hint=_KEY_HINT)
        self.problem = problem


class DuplicateSubscriberError(BusError):
    """Two subscribers of one process carry the same name."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a subscriber named {name!r} is already on this bus",
            hint="give each subscriber its own name, or unsubscribe the first",
        )
        self.name = name


class ClientClosedError(BusError):
    """A client was used outside of its `with` block, or after close()."""

    def __init__(self, state: str) -> None:
        super().__init__(
            f"the client is {state}", hint="use it within its `with` (or `async with`) block"
        )


class CallTimeoutError(BusError, TimeoutError):
    """A call of the synchronous client had no result in time.

    Attributes:
        call: The name of the method.
        timeout_s: Seconds it was waited for.
    """

    def __init__(self, call: str, timeout_s: float) -> None:
        super().__init__(f"{call}() had no result within {timeout_s:g} s")
        self.call = call
        self.timeout_s = timeout_s
