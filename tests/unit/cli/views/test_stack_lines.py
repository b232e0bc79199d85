"""Stacks as text: the user's code first, the rest in short."""

import asyncio

from pbus.client.stacks import WorkerStacks
from pbus.stack_values import ProcessStacks, StackFrame, TaskStack, ThreadStack
from pbus_cli.views.stack_lines import stack_lines

MINE = StackFrame("/home/ann/workers.py", 12, "Stt.on_bus_message")
THEIRS = StackFrame(asyncio.__file__, 5, "sleep")


def task(
    name: str, *frames: StackFrame, waits_for: str = "a future", runs: bool = False
) -> TaskStack:
    """A task with this stack."""
    return TaskStack(name=name, is_running=runs, waits_for=waits_for, frames=frames)


def shown(*tasks: TaskStack, left_out: int = 0, are_known: bool = True) -> list[str]:
    """The lines of a process with one thread."""
    stacks = ProcessStacks(
        pid=7,
        threads=(ThreadStack(name="MainThread", frames=(MINE,)),),
        tasks=tasks if are_known else None,
        left_out=left_out,
    )
    return list(stack_lines(WorkerStacks(worker="stt", pid=7, host="h", stacks=stacks)))


def test_users_code_comes_first():
    """Tasks without it are one line each, with what they wait for and where."""
    lines = shown(task("beat", THEIRS), task("mine", MINE, THEIRS), task("new", waits_for=""))
    assert [
        "stt, pid 7: its event loop waits; 3 tasks",
        "",
        "thread MainThread",
        "  /home/ann/workers.py:12 Stt.on_bus_message",
        "",
        "task mine waits for a future",
        "  /home/ann/workers.py:12 Stt.on_bus_message",
        f"  {asyncio.__file__}:5 sleep",
        "",
        "tasks without code of yours, each with its innermost line",
        f"  beat waits for a future: {asyncio.__file__}:5 sleep",
        "  new is about to run",
    ] == lines


def test_running_task_leads():
    """The one that keeps the loop is named in the heading and is the first."""
    lines = shown(task("one", MINE), task("two", MINE, waits_for="", runs=True))
    assert "stt, pid 7: its event loop runs task two" == lines[0]
    assert ["task two runs", "task one waits for a future"] == [
        line for line in lines if line.startswith("task ")
    ]


def test_unknown_and_left_out_tasks_are_said():
    """Nothing looks complete that is not."""
    assert "its tasks are not known" in shown(are_known=False)[0]
    lines = shown(task("one", MINE), left_out=1200)
    assert lines[0].endswith("waits; 1201 tasks")
    assert "and 1,200 tasks more" == lines[-1]
