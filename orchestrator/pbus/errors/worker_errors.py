"""Errors of workers, handlers and runners."""

from collections.abc import Sequence

from pbus.errors.base_error import PbusError, text_of


class WorkerError(PbusError):
    """A worker cannot do what was asked of it."""


class WorkerNameError(WorkerError):
    """A worker name the bus cannot address."""

    def __init__(self, name: object, problem: str) -> None:
        super().__init__(
            f"{name!r} is no worker name: {problem}",
            hint="use one line of text without * ? [ ] @ , / \\ $ and `, that begins with no - . or ~"
            " and ends with no dot or space",
        )
        self.name = name


class WorkerNotAttachedError(WorkerError, RuntimeError):
    """The worker was used before a runner attached it."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"worker {name!r} is not attached to a runner",
            hint="add it with runner.add_workers() and use it from start() on",
        )
        self.name = name


class DuplicateWorkerError(WorkerError):
    """A worker name is taken by another live worker of the channel."""

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f"the worker name {name!r} is taken by {holder}",
            hint="choose another name, or wait until that worker has left",
        )
        self.name = name
        self.holder = holder


class WorkerNotFoundError(WorkerError):
    """No worker of that name was registered in time."""

    def __init__(self, name: str, waited_s: float, hint: str | None = None) -> None:
        super().__init__(
            f"no worker {name!r} was registered within {waited_s:g} s",
            hint=hint or "`pbus ps` lists those that are",
        )
        self.name = name
        self.waited_s = waited_s


class HandlerDefinitionError(WorkerError, ValueError):
    """A handler, hook, attribute or argument of a worker class clashes or has the wrong form."""

    def __init__(self, where: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{where}: {problem}", hint=hint)
        self.where = where


class HandlerExitError(WorkerError):
    """A handler raised SystemExit or the like; the handling of its message failed.

    Attributes:
        where: The handler and its owner.
        kind: The name of the class of the exception.
    """

    def __init__(self, where: str, error: BaseException) -> None:
        if isinstance(error, SystemExit):
            code = "" if error.code is None else text_of(error)
            problem, hint = f"called sys.exit({code})", "`await self.end()` ends the session"
        else:
            text, kind = text_of(error), type(error).__name__
            problem = f"raised {kind}" if text == kind else f"raised {kind}: {text}"
            hint = "raise an Exception; no other is a handler's to raise"
        super().__init__(f"{where} {problem}, which ends this message only", hint=hint)
        self.where = where
        self.kind = type(error).__name__


class RunnerStateError(WorkerError):
    """A runner is in the wrong state for a call."""

    def __init__(self, name: str, state: str) -> None:
        super().__init__(f"runner {name!r} {state}", hint="make a new WorkerRunner, each runs once")
        self.name = name
        self.state = state


class UnknownEventError(WorkerError):
    """A handler was added to an event that does not exist."""

    def __init__(
        self, owner: str, event: str, known: Sequence[str], nearest: Sequence[str] = ()
    ) -> None:
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(known)}"
        super().__init__(f"{owner} has no event {event!r}", hint=hint)
        self.event = event
        self.known = tuple(known)


class UnknownNameError(WorkerError):
    """A name stands for nothing that is there.

    Attributes:
        what: The kind of thing that was named: "worker" or "queue".
        name: The name as it was given.
        nearest: The known name most like it; None if none is like it.
        known: All known names.
    """

    def __init__(self, what: str, name: str, nearest: str | None, known: Sequence[str]) -> None:
        if nearest is not None:
            hint = f"did you mean {nearest!r}?"
        else:
            hint = f"there are: {', '.join(known) or 'none'}"
        super().__init__(f"there is no {what} {name!r}", hint=hint)
        self.what = what
        self.name = name
        self.nearest = nearest
        self.known = tuple(known)


class UnsupervisedWorkerError(UnknownNameError):
    """A worker is on the bus, but no supervisor started it, so none can start or stop it."""

    def __init__(self, name: str) -> None:
        WorkerError.__init__(
            self,
            f"{name!r} was not started by `pbus up`",
            hint="only the program that started it can do that",
        )
        self.what = "worker"
        self.name = name
        self.nearest = None
        self.known = ()


def kind_of(error: BaseException) -> str:
    """The name of the class of any error."""
    return error.kind if isinstance(error, HandlerExitError) else type(error).__name__
