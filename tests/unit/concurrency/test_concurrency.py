"""Backoff, waiting for the first of several, owned tasks."""

import asyncio

import pytest

from pbus.concurrency.background import ErrorLog, TaskOwner, run_forever
from pbus.concurrency.backoff import delay_after
from pbus.concurrency.waiting import first_of
from support.waiting import run


@pytest.mark.parametrize(
    ("failures", "expected"),
    [(0, 0.0), (1, 0.5), (2, 1.0), (4, 4.0), (5, 5.0), (100_000, 5.0)],
)
def test_delay_doubles_to_its_limit(failures: int, expected: float) -> None:
    """No delay before the first attempt; each failure doubles it; no count overflows."""
    assert expected == delay_after(failures, 0.5, 5.0)


def test_first_of_cancels_the_others() -> None:
    """The first result is returned; the others have ended when first_of returns."""
    ended = []

    async def wait_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("other")

    async def main() -> None:
        first, other = await first_of(asyncio.sleep(0, "result"), wait_for_ever())
        assert ("result", True, ["other"]) == (first.result(), other.cancelled(), ended)

    run(main())


def test_first_of_ends_at_its_timeout(caplog: pytest.LogCaptureFixture) -> None:
    """After the timeout all are cancelled; an error stays in its future and is not logged."""

    async def fail() -> None:
        raise ValueError("mine")

    async def main() -> None:
        (late,) = await first_of(asyncio.Event().wait(), timeout_s=0.0)
        assert late.cancelled()
        failed, _ = await first_of(fail(), asyncio.Event().wait())
        assert "mine" == str(failed.exception())

    run(main())
    assert [] == caplog.records


def test_cancelled_first_of_leaves_no_task() -> None:
    """Cancelling the waiter cancels what it waits for."""

    async def main() -> None:
        waiting = asyncio.create_task(first_of(asyncio.Event().wait(), asyncio.Event().wait()))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run(main())


def test_owner_forgets_and_cancels() -> None:
    """A finished task is not kept; close() ends the others."""

    async def main() -> None:
        tasks, is_done = TaskOwner(), asyncio.Event()

        async def finish() -> None:
            is_done.set()

        tasks.spawn(finish(), "short")
        tasks.spawn(asyncio.Event().wait(), "long")  # type: ignore[arg-type]
        await is_done.wait()
        await asyncio.sleep(0)
        assert 1 == len(tasks)
        await tasks.close()
        await asyncio.sleep(0)
        assert 0 == len(tasks)

    run(main())


def test_function_runs_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error is reported; of equal errors in a row one is logged."""
    monkeypatch.setattr("pbus.concurrency.background._RESTART_DELAY_S", 0.0)
    errors: list[int] = []

    async def main() -> None:
        has_failed_thrice = asyncio.Event()

        def on_error() -> None:
            errors.append(1)
            if len(errors) == 3:
                has_failed_thrice.set()

        async def fail() -> None:
            raise ValueError("again")

        await first_of(run_forever("it", fail, on_error), has_failed_thrice.wait())

    run(main())
    assert 3 <= len(errors)


def test_equal_errors_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Another error is logged again."""
    errors = ErrorLog("it")
    for text in ("a", "a", "b"):
        with errors.catch():
            raise ValueError(text)

    assert ["it ended by an error: a bug in pbus; it goes on"] * 2 == caplog.messages
