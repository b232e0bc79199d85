"""Orders from other terminals: what each worker was told to do, and when that is so."""

from pbus.messages import (
    BusControlRequestMessage,
    BusControlResponseMessage,
    ControlAction,
    ControlOutcome,
)
from pbus.process.supervisor.restart_policy import describe_exit
from pbus.process.supervisor.worker_process import WorkerProcess
from pbus.process.supervisor.worker_set import WorkerSet

_MOST_ORDERS = 256  # remembered for those who ask again; the oldest fall
_ENDING = "the project is stopping"

Outcome = tuple[ControlOutcome, str]


class ControlServer:
    """Takes orders, passes them to the actors, and answers when they are carried out.

    Args:
        name: The supervisor's address.
        crew: Who is ordered about.
    """

    def __init__(self, name: str, crew: WorkerSet) -> None:
        self._name = name
        self._crew = crew
        self._orders: dict[str, list[_Task]] = {}
        self._open: list[_Task] = []  # not answered since somebody asked last
        self._answers: list[BusControlResponseMessage] = []

    def take(self, request: BusControlRequestMessage) -> None:
        """Begin to do what is asked; asked again, it is only answered again."""
        tasks = self._orders.get(request.order)
        if tasks is None:
            tasks = [_Task(request, worker, self._crew) for worker in request.workers]
            self._remember(request.order, tasks)
            for task in tasks:
                task.begin()
        asked = [task for task in tasks if task.worker in request.workers]
        self._open += [task for task in asked if task not in self._open]
        self.look()

    def look(self) -> None:
        """See what has been carried out since."""
        still_open = []
        for task in self._open:
            answer = task.answer(self._name)
            if answer is None:
                still_open.append(task)
            else:
                self._answers.append(answer)
        self._open = still_open

    def answers(self) -> list[BusControlResponseMessage]:
        """What is to be sent."""
        answers, self._answers = self._answers, []
        return answers

    def _remember(self, order: str, tasks: "list[_Task]") -> None:
        self._orders[order] = tasks
        while len(self._orders) > _MOST_ORDERS:
            forgotten = self._orders.pop(next(iter(self._orders)))
            self._open = [task for task in self._open if task not in forgotten]


class _Task:
    """One worker of one order.

    Attributes:
        worker: Its name.
    """

    def __init__(self, request: BusControlRequestMessage, worker: str, crew: WorkerSet) -> None:
        self._request = request
        self.worker = worker
        self._actor = crew.get(worker)
        self._life = 0
        self._verdict: Outcome | None = None

    def begin(self) -> None:
        """Pass the order on, and note which life of the worker it is about."""
        if self._actor is None:
            self._verdict = "refused", "this supervisor has no such worker"
        elif self._actor.is_final:
            self._verdict = "refused", _ENDING
        else:
            if is_satisfied(self._request.action, self._actor):
                self._verdict = "unchanged", ""
            _pass_on(self._request, self._actor)
            self._life = self._actor.due_life

    def answer(self, source: str) -> BusControlResponseMessage | None:
        """The answer, as soon as there is one."""
        actor = self._actor
        if self._verdict is None and actor is not None:
            self._verdict = outcome_of(self._request.action, actor, self._life)
        if self._verdict is None:
            return None
        outcome, detail = self._verdict
        return BusControlResponseMessage(
            source=source,
            target=self._request.source,
            order=self._request.order,
            worker=self.worker,
            outcome=outcome,
            state=None if actor is None else actor.state,
            pid=None if actor is None or actor.child is None else actor.child.pid,
            detail=detail,
        )


def _pass_on(request: BusControlRequestMessage, actor: WorkerProcess) -> None:
    match request.action:
        case "start":
            actor.start()
        case "stop":
            actor.stop(request.timeout_s)
        case "restart":
            actor.restart(request.timeout_s)


def is_satisfied(action: ControlAction, actor: WorkerProcess) -> bool:
    """Whether what is asked for is the case already."""
    if action == "start":
        return actor.state == "ready" and actor.is_wanted and actor.due_life == actor.lives
    return action == "stop" and not actor.is_wanted and _is_down(actor)


def outcome_of(action: ControlAction, actor: WorkerProcess, life: int) -> Outcome | None:
    """Say how an order ended, or None while it is being carried out.

    Args:
        action: What was asked for.
        actor: Of whom.
        life: The number of the life that is to become ready.
    """
    if actor.survivors and actor.state == "stopping":
        return "failed", actor.survivors
    if action == "stop":
        return _judge_stop(actor)
    if actor.is_held:
        return "superseded", "stopped meanwhile"
    if actor.is_final:
        return "superseded", _ENDING
    return None if actor.lives < life else _judge_life(action, actor)


def _judge_stop(actor: WorkerProcess) -> Outcome | None:
    if actor.is_wanted:
        return "superseded", "started again meanwhile"
    if not _is_down(actor):
        return None
    return ("failed", actor.survivors) if actor.survivors else ("done", _exit_text(actor))


def _judge_life(action: ControlAction, actor: WorkerProcess) -> Outcome | None:
    match actor.state:
        case "ready":
            return "done", actor.left if action == "restart" else ""
        case "exited":
            return "done", _exit_text(actor)
        case "backoff" | "failed":
            return "failed", actor.record().trouble or _exit_text(actor)
    return None


def _is_down(actor: WorkerProcess) -> bool:
    return actor.child is None and actor.state in {"exited", "failed"}


def _exit_text(actor: WorkerProcess) -> str:
    if actor.code is None:
        return ""
    return ", ".join(filter(None, (describe_exit(actor.code), actor.left)))
