"""The restart policy, played with histories and a clock that is only a number."""

from typing import Any

import pytest

from pbus.process.supervisor.worker.restart_policy import (
    Decision,
    Exit,
    Finish,
    GiveUp,
    History,
    Restart,
    after_exit,
    count_text,
    describe_exit,
)
from pbus.topology.policy.policies import RestartPolicy, RestartSpec

USUAL = RestartSpec()


def decide(
    spec: RestartSpec, code: int, history: History, at: float, ready_for_s: float = 0.0, **how: Any
) -> Decision:
    """The decision on one exit."""
    end = Exit(code=code, at=at, has_succeeded=code == 0, ready_for_s=ready_for_s, **how)
    return after_exit(spec, end, history)


def play(times: list[float], spec: RestartSpec = USUAL, code: int = 1) -> list[Decision]:
    """The decisions on exits at these times, until the policy is done with the worker."""
    history = History()
    decisions = []
    for now in times:
        decision = decide(spec, code, history, now)
        decisions.append(decision)
        if not isinstance(decision, Restart):
            break
        history = decision.history
    return decisions


def delays(decisions: list[Decision]) -> list[float]:
    return [one.delay_s for one in decisions if isinstance(one, Restart)]


def test_delays_double_up():
    """Consecutive failures wait 0.5 s, then twice as long each time, and at most 30 s."""
    decisions = play([60.0 * n for n in range(9)])

    assert [0.5, 1, 2, 4, 8, 16, 30, 30, 30] == delays(decisions)


def test_delay_never_overflows():
    """A worker that failed ten thousand times still waits the longest delay."""
    decision = decide(RestartSpec(policy="always"), 1, History(streak=10_000), 0.0)

    assert isinstance(decision, Restart)
    assert 30.0 == decision.delay_s


def test_fifth_quick_exit_fails():
    """Five exits within a minute are a crash loop: the fifth is given up, with its reason."""
    decisions = play([0.0, 1.0, 2.5, 5.0, 9.4, 20.0])

    assert 4 == len(delays(decisions))
    assert GiveUp("exited with code 1, 5 times within 9 s") == decisions[-1]


def test_slow_crashes_go_on():
    """A worker that crashes four times a minute is restarted for ever."""
    decisions = play([20.0 * n for n in range(100)])

    assert 100 == len(delays(decisions))


def test_exits_leave_window():
    """An exit a whole window ago no longer counts."""
    assert isinstance(play([0.0, 1.0, 2.0, 3.0, 60.0])[-1], Restart)
    assert isinstance(play([0.0, 1.0, 2.0, 3.0, 59.9])[-1], GiveUp)


def test_steady_worker_has_a_new_history():
    """After a minute of being ready the next failure is treated as the first."""
    history = History(streak=6, exits=(10.0, 20.0, 30.0, 40.0))

    steady = decide(RestartSpec(), 1, history, 69.0, 60.0)
    shaky = decide(RestartSpec(), 1, history, 69.0, 59.9)

    assert Restart(0.5, History(1, (69.0,))) == steady
    assert isinstance(shaky, GiveUp)


@pytest.mark.parametrize(
    ("policy", "code", "expected"),
    [
        ("never", 0, Finish()),
        ("never", 3, GiveUp("exited with code 3")),
        ("on-failure", 0, Finish()),
        ("on-failure", 3, Restart(0.5, History(1, (7.0,)))),
        ("on-failure", -9, Restart(0.5, History(1, (7.0,)))),
        ("always", 0, Restart(0.5, History(1, (7.0,)))),
        ("always", 3, Restart(0.5, History(1, (7.0,)))),
    ],
)
def test_policy_decides_restart(policy: RestartPolicy, code: int, expected: Decision):
    """Each policy restarts what it says and nothing else."""
    assert expected == decide(RestartSpec(policy=policy), code, History(), 7.0)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-1000, "was killed by signal 1000"),
    ],
)
def test_exit_codes_read_well(code: int, expected: str):
    """A signal is named, not shown as a negative number."""
    assert expected == describe_exit(code)


def test_excused_exits_do_not_count():
    """While the broker is away a worker may end as often as it will: pauses grow, it is not given up."""
    history, delays = History(), []
    for now in range(10):
        decision = decide(RestartSpec(), 1, history, float(now), is_excused=True)
        assert isinstance(decision, Restart)
        history = decision.history
        delays.append(decision.delay_s)
    assert [0.5, 1, 2, 4] == delays[:4]
    assert () == history.exits
    assert isinstance(
        decide(RestartSpec(policy="never"), 1, history, 10.0, is_excused=True), GiveUp
    )
    assert isinstance(decide(RestartSpec(), 0, history, 10.0, is_excused=True), Finish)


def test_own_numbers():
    """Pauses, their growth and their limit, and how many ends are too many, are the user's."""
    spec = RestartSpec(initial_s=1.0, factor=3.0, max_s=10.0, max_exits=6, within_s=1000.0)
    decisions = play([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], spec)

    assert [1, 3, 9, 10, 10] == delays(decisions)
    assert GiveUp("exited with code 1, 6 times within 5 s") == decisions[-1]


def test_jitter_spreads_delays():
    """The random share decides within the jitter; without jitter it does not matter."""
    end = Exit(code=1, at=0.0)
    spread = RestartSpec(initial_s=10.0, jitter=0.2)
    found = [after_exit(spread, end, History(), share) for share in (0.0, 0.5, 1.0)]

    assert [8, 10, 12] == delays(found)
    assert [10] == delays([after_exit(RestartSpec(initial_s=10.0), end, History(), 1.0)])


def test_other_codes_may_be_good():
    """Who counts an exit as good decides, not its code."""
    end = Exit(code=143, at=0.0, has_succeeded=True)

    assert Finish() == after_exit(RestartSpec(), end, History())
    assert isinstance(after_exit(RestartSpec(policy="always"), end, History()), Restart)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, ""), (1, ""), (2, " (exit 2 of 5 within 60 s)"), (4, " (exit 4 of 5 within 60 s)")],
)
def test_count_of_exits_is_said(count: int, expected: str):
    """From the second one on, with the number at which the worker is given up."""
    history = History(count, tuple(map(float, range(count))))
    assert expected == count_text(RestartSpec(), history)
