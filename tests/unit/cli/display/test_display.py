"""The interactive display: panes, keys and mouse, driven as a person would."""

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from pbus.process.supervisor_events import Line
from pbus_cli.live.display.display_app import DisplayApp
from pbus_cli.views.board.arrangement import Focus
from pbus_cli.views.board.board_snapshot import Failure, Snapshot
from support.boards import (
    FakeSource,
    dead,
    folded,
    passed,
    project,
    queues,
    shown,
    traced,
    until_shown,
    worker_row,
)

SMALL, WIDE = (80, 24), (160, 45)
Look = Callable[[DisplayApp, "Pilot[None]", FakeSource], Awaitable[None]]


def see(
    look: Look,
    snapshot: Snapshot | None = None,
    size: tuple[int, int] = SMALL,
    **options: Any,
) -> FakeSource:
    """Open a display of a project, and look at it."""
    source = FakeSource(snapshot or project(), options.pop("parting", None))

    async def main() -> None:
        app = DisplayApp(source, **options)
        async with app.run_test(size=size) as pilot:
            await until_shown(app, pilot, "voice")
            await look(app, pilot, source)

    asyncio.run(main())
    return source


async def press(app: DisplayApp, pilot: "Pilot[None]", *keys: str) -> str:
    """Press keys; returns what is shown then."""
    await pilot.press(*keys)
    await pilot.pause()
    return "\n".join(shown(app))


def test_small_screen_has_the_most_useful():
    """80 x 24: health, the failure, workers with replicas folded, rates, messages, lines and keys."""

    async def look(app: DisplayApp, _pilot: Any, source: FakeSource) -> None:
        lines = shown(app)

        assert lines[0].startswith("pbus voice  3/5 ready, 1 failed, 1 backoff  up 1h02m")
        assert lines[1].startswith(" tts failed: exited with code 1: boom ")
        assert ["tts", "mic", "▸ stt x2", "agent"] == [line[:8].strip() for line in lines[4:8]]
        assert "1/2 ready, 1 backoff" in lines[6]
        assert any("▸    50/s" in line and "312 KB/s" in line for line in lines)
        assert any("word 39" in line for line in lines)
        assert "agent | line 99" in lines[22]
        assert "q leave  ? help" in lines[23]
        assert {"workers", "traffic", "logs"} == source.wanted

    see(look)


def test_alarms_are_seen():
    """A failure is reversed over its whole line's text, as the choice is."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        strips = app.screen._compositor.render_strips()
        assert [True] == [
            bool(one.style and one.style.reverse and one.style.bold)
            for one in strips[1]
            if "tts failed" in one.text
        ]
        await press(app, pilot, "1")
        chosen = app.screen._compositor.render_strips()[4]
        assert all(one.style and one.style.reverse for one in chosen)

    see(look)


def test_wide_screen_has_all():
    """160 x 45: edges with their rates over time, jobs with bars and dead letters beside them."""

    async def look(app: DisplayApp, _pilot: Any, source: FakeSource) -> None:
        text = "\n".join(shown(app))

        for pane in ("1 workers", "2 traffic", "3 logs", "4 edges", "5 jobs", "6 dead letters"):
            assert f" {pane} " in text
        assert "▅█▅" in text
        assert "▰▰▰▱▱▱▱▱▱▱ 12/40 30%" in text
        assert 6 == len(source.wanted)

    see(look, size=WIDE)


@pytest.mark.parametrize("size", [(40, 10), (20, 5), (9, 3), (3, 1), (300, 100)])
def test_any_size(size: tuple[int, int]):
    """Each line is as wide as the screen; every pane can be gone to."""

    async def main() -> None:
        app = DisplayApp(FakeSource(project(queues=queues(tts=1))))
        async with app.run_test(size=size) as pilot:
            for key in "123456z":
                await pilot.press(key)
                await pilot.pause()
                shown(app)

    asyncio.run(main())


def test_resize_arranges_again():
    """A terminal that grows gets the panes for which it had no room, at once."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        assert "4 edges" not in "\n".join(shown(app))
        await pilot.resize_terminal(*WIDE)
        await until_shown(app, pilot, "4 edges")
        await pilot.resize_terminal(*SMALL)
        await pilot.pause()
        assert "4 edges" not in "\n".join(shown(app))

    see(look)


def test_panes_by_keys():
    """Digits, Tab and z; a pane that is chosen is in sight, its title marked without a colour."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        edges = await press(app, pilot, "4")
        assert "RATE OVER TIME" in edges
        assert "3 logs" not in edges
        assert {"workers", "edges"} == source.wanted
        assert "▰▰▰▱▱▱▱▱▱▱ 12/40" in await press(app, pilot, "tab")
        assert "RATE OVER TIME" in await press(app, pilot, "shift+tab")
        zoomed = await press(app, pilot, "z")
        assert "1 workers" not in zoomed
        assert "1 workers" in await press(app, pilot, "z")
        title = next(
            strip for strip in app.screen._compositor.render_strips() if "4 edges" in strip.text
        )
        assert [" 4 edges "] == [one.text for one in title if one.style and one.style.reverse]

    see(look)


def test_begins_where_it_is_told():
    """`ps --watch` and `stats --watch`: one pane at first, filtered; all others are a key away."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        text = "\n".join(shown(app))
        assert {"workers"} == source.wanted
        assert "/ready" in text
        assert "mic" in text
        assert "tts   " not in text
        assert "2 traffic" not in text
        assert "2 traffic" in await press(app, pilot, "z")

    see(look, focus=Focus("workers", is_zoomed=True, wanted="ready"))


def test_group_unfolds():
    """Space shows the replicas of a group, and folds them again; other workers stay as they are."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        unfolded = await press(app, pilot, "1", "down", "down", "space")
        assert "▾ stt x2" in unfolded
        assert "\n  stt.1   ready" in unfolded
        assert "\n  stt.2   backoff" in unfolded
        assert "\n  stt.1" not in await press(app, pilot, "space")

    see(look)


def test_failed_worker_is_first():
    """Failures stay in sight, however many workers there are."""
    rows = tuple(worker_row(f"w{number:03}") for number in range(300))
    failures = (Failure("w299", "boom"),)

    async def look(app: DisplayApp, _pilot: Any, _source: FakeSource) -> None:
        lines = shown(app)
        assert lines[1].startswith(" w299 failed: boom ")
        assert lines[4].startswith("w299  failed")

    bad = worker_row("w299", "failed")
    see(look, project(rows=(*rows[:-1], bad), failures=failures))


def test_rare_messages_stay_in_sight():
    """Busy edges take a line each; f shows their messages one by one, and folds them again."""
    frames = tuple(
        passed(100 + n, type="BusFrameMessage", source="mic", target="stt") for n in range(50)
    )
    snapshot = project(folded=(folded(latest=frames),))

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        text = await press(app, pilot, "2")
        assert "word 39" in text
        assert "word 149" not in text
        unfolded = await press(app, pilot, "f")
        assert "word 149" in unfolded
        assert "50/s     mic" not in unfolded
        assert "word 149" not in await press(app, pilot, "f")

    see(look, snapshot)


def test_filter_of_a_pane():
    """Words that must occur and words that must not; it is heeded while it is typed; Esc ends it."""
    logs = tuple(Line("agent" if n % 2 else "tts", "out", f"line {n}", 0.0) for n in range(100))

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        text = await press(app, pilot, "3", "slash", *"tts 1 !line")
        assert "nothing of this has 'tts 1 !line'" in text
        text = await press(app, pilot, *["backspace"] * 6, "enter")
        assert "tts   | line 98" not in text
        assert "tts   | line 18" in text
        assert "/tts 1" in text
        assert "word 39" in text  # the other panes have their own
        await press(app, pilot, "r", "s", "q")
        assert source.has_left
        assert "agent | line 99" in await press(app, pilot, "slash", "escape")

    see(look, project(logs=logs))


@pytest.mark.parametrize("word", ["\x1b[31m", "a\x07b", "\x9b5m"])
def test_filter_takes_no_controls(word: str):
    """What is pasted there is text."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        await press(app, pilot, "slash")
        app.board._filter.insert_text_at_cursor(word)
        await pilot.pause()
        text = "\n".join(shown(app))
        assert not set(word) & {"\x1b", "\x07", "\x9b"} & set(text)

    see(look)


def test_pause_and_scroll():
    """What follows its end holds still when it is scrolled, says what has come, and goes on with End."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        await press(app, pilot, "3", "up")
        more = tuple(Line("agent", "out", f"line {n}", 0.0) for n in range(1_000, 1_100))
        source.give(project(logs=more, logged=200))
        lines = await until_shown(app, pilot, "‖ 100 new")
        assert "agent | line 99" in lines[22]
        assert "agent | line 90" in await press(app, pilot, "pageup", "pageup")
        assert "agent | line 0 " in await press(app, pilot, "home")
        text = await press(app, pilot, "end")
        assert "line 1099" in text
        assert "new" not in text
        assert "‖ 0 new" in await press(app, pilot, "space")
        assert "new" not in await press(app, pilot, "space")

    see(look)


def test_message_is_inspected():
    """Enter shows the whole message as indented JSON, its header first; Esc leads back."""
    body = b'{"type":"T","source":"a","deep":{"list":[1,2]},"text":"' + b"x" * 300 + b'"}'
    one = passed(1, body=body, size=len(body), key="caller-7", is_urgent=True)

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        text = await press(app, pilot, "2", "space", "enter")
        assert "key           caller-7" in text
        assert "lane          system" in text
        assert '    "list": [\n'.strip() in text
        assert "x" * 80 in text.replace("\n", "")  # wrapped, not cut
        assert "2 traffic" in await press(app, pilot, "escape")

    see(look, project(messages=(one,), folded=()))


def test_conversation_is_drawn():
    """`t` shows the trace of a message as a diagram, of what is folded too, and of no other trace."""
    own = traced(("mic", "stt", "Frame"), ("stt", "agent", "Heard"), ("agent", "tts", "Say"))
    other = traced(("clock", "stt", "Tick"), trace="cd" * 16)
    snapshot = project(messages=(*own[1:], *other), folded=(folded(latest=own[:1]),))

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        assert "conversation" not in await press(app, pilot, "1", "t", "3", "t")
        text = await press(app, pilot, "2", "up", "t")
        assert "conversation" in text
        for part in ("mic", "stt", "agent", "tts", "Frame", "Heard", "Say"):
            assert part in text
        assert "clock" not in text
        assert text.index("Frame") < text.index("Heard") < text.index("Say")
        assert "2 traffic" in await press(app, pilot, "q")
        assert "Frame" in await press(app, pilot, "home", "t")  # of a busy edge the newest
        await press(app, pilot, "q", "end")
        assert "Tick" in await press(app, pilot, "t")

    see(look, snapshot, (120, 30))


@pytest.mark.parametrize(
    ("pane", "expected"),
    [
        ("1", ["state         failed", "error         exited with code 1", "| last word"]),
        ("2", ["BusFrameMessage, folded", "rate          50/s"]),
        ("3", ["worker        agent", "line 99"]),
        ("4", ["handled       99, 1 with an error", "wait          p50 100us, p95 2.0ms"]),
        ("5", ["job           j1", "progress      12/40 30%"]),
        ("6", ["ValueError: boom", '  "text": "spoken"', "attempts      5"]),
    ],
)
def test_all_can_be_inspected(pane: str, expected: list[str]):
    """Enter tells all that is known of any line."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        text = await press(app, pilot, pane, *(["space", "home"] if pane == "2" else []), "enter")
        for part in expected:
            assert part in text

    given = {"dead": (dead(),), "queues": queues(tts=1), "last_words": {"tts": ("last word",)}}
    see(look, project(**given))


@pytest.mark.parametrize(
    ("keys", "answer", "orders"),
    [
        (["1", "down", "r"], "y", [("restart", "mic", 0)]),
        (["1", "down", "r"], "n", []),
        (["1", "down", "r"], "1", []),
        (["1", "down", "r"], "escape", []),
        (["1", "down", "down", "r"], "y", [("restart", "stt", 0)]),
        (["1", "down", "s"], "y", [("stop", "mic", 0)]),
        (["1", "down", "down", "plus"], "y", [("scale", "stt", 3)]),
        (["1", "down", "down", "minus"], "y", [("scale", "stt", 1)]),
        (["1", "down", "down", "space", "down", "minus"], "y", [("scale", "stt", 1)]),
        (["6", "U"], "y", [("requeue", "", 0)]),
        (["6", "U"], "n", []),
        (["2", "r"], "y", []),
        (["3", "plus"], "y", []),
        (["5", "u"], "y", []),
    ],
    ids=str,
)
def test_orders(keys: list[str], answer: str, orders: list[Any]):
    """Keys act on the chosen line, after a yes; on panes without such lines they do nothing."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        text = await press(app, pilot, *keys)
        assert ("y: yes" in text) == (
            keys[-1] in {"r", "s", "plus", "minus", "U"} and keys[0] in "16"
        )
        assert [] == source.orders
        text = await press(app, pilot, answer)
        assert "y: yes" not in text
        assert orders == source.orders
        await press(app, pilot, "q")
        assert source.has_left  # keys are the panes' again

    see(look, project(dead=(dead(),), queues=queues(tts=1)))


def test_harmless_orders_are_not_asked():
    """What does not run is started, one dead letter is requeued, at once."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        await press(app, pilot, "1", "s", "6", "down", "u")
        assert [("start", "tts", 0), ("requeue", "k2", 0)] == source.orders

    see(look, project(dead=(dead(), dead("k2")), queues=queues(tts=2)))


def test_cursor_stays_on_its_line():
    """Others come and go above it: an order meets the worker that was chosen."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        await press(app, pilot, "1", "end")
        rows = (worker_row("bad", "failed"), worker_row("a"), *project().rows)
        source.give(project(rows=rows))
        await until_shown(app, pilot, "bad")
        await press(app, pilot, "r", "y")
        source.give(project(rows=rows[:2]))
        await until_shown(app, pilot, "1/2 ready, 1 failed")
        await press(app, pilot, "r", "y")
        assert [("restart", "agent", 0), ("restart", "a", 0)] == source.orders

    see(look)


@pytest.mark.parametrize(("parting", "asked"), [(None, False), ("stop all?", True)])
def test_leaving(parting: str | None, asked: bool):
    """`q` leaves at once where the project goes on; otherwise it asks, and no is no."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        text = await press(app, pilot, "q")
        assert ("stop all?" in text, source.has_left) == (asked, not asked)
        if asked:
            await press(app, pilot, "n")
            assert not source.has_left
            await press(app, pilot, "q", "y")
            assert source.has_left

    see(look, parting=parting)


def test_help_explains_all():
    """Every sign that panes show, every state and every key, at any width."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        seen = await press(app, pilot, "question_mark")
        for _ in range(8):
            seen += await press(app, pilot, "pagedown")
        for sign in ("▸", "→", "[key]", "(local)", "‖", "▰▰▱", "unresponsive", "BACKLOG", "Ctrl-C"):
            assert sign in seen
        assert "2 traffic" in await press(app, pilot, "q")

    see(look)


def test_mouse():
    """A click chooses a pane and a line, a second one inspects it, the wheel scrolls."""

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        await pilot.click("#workers", offset=(3, 3))
        await press(app, pilot)
        assert app.board.panes["workers"].chosen.value.name == "mic"
        await pilot.click("#workers", offset=(3, 3))
        await until_shown(app, pilot, "worker        mic")
        await press(app, pilot, "escape")
        await pilot._post_mouse_events([_wheel_up()], widget="#logs", offset=(1, 1))
        await until_shown(app, pilot, "‖ 0 new")

    see(look)


def _wheel_up() -> Any:
    from textual.events import MouseScrollUp  # noqa: PLC0415 - only here

    return MouseScrollUp


EVIL = "[bold]x[/bold] [@click=app.quit]y[/] \x1b]0;evil\x07\x1b[31m\u202ered\x9b5m\r\n\ttab"


@pytest.mark.parametrize("size", [SMALL, WIDE])
def test_foreign_text_does_nothing(size: tuple[int, int]):
    """Names, errors, bodies, lines: no markup is interpreted, no control reaches the terminal."""
    snapshot = project(
        project=f"voice {EVIL}",
        bus=EVIL,
        rows=(worker_row("a" + EVIL, "failed", error=EVIL), worker_row("b.1"), worker_row("b.2")),
        messages=(passed(1, type=EVIL, source=EVIL, target=EVIL, body=EVIL.encode(), key=EVIL),),
        folded=(folded(source=EVIL, type=EVIL, latest=(passed(1, body=EVIL.encode()),)),),
        logs=(Line(EVIL, "out", EVIL, 0.0),),
        failures=(Failure(EVIL, EVIL),),
        edges=tuple(
            dataclasses.replace(one, stats=type(one.stats)(**{
                **{name: getattr(one.stats, name) for name in one.stats.__struct_fields__},
                "source": EVIL, "target": EVIL, "type": EVIL,
            }))
            for one in project().edges
        ),
        dead=(dataclasses.replace(dead(), text=EVIL),),
        queues=queues(tts=1),
        foot=EVIL,
        last_words={"a" + EVIL: (EVIL,)},
    )  # fmt: skip

    def see_clean(app: DisplayApp) -> None:
        text = "\n".join(shown(app))
        assert not set(text) & set("\x1b\x07\x9b\r\t\u202e")

    async def look(app: DisplayApp, pilot: "Pilot[None]", _source: FakeSource) -> None:
        see_clean(app)
        assert "[bold]x[/bold]" in "\n".join(shown(app))
        for pane in "123456":
            await press(app, pilot, pane, *(["space", "home"] if pane == "2" else []), "enter")
            see_clean(app)
            await press(app, pilot, "escape")

    see(look, snapshot, size)


@pytest.mark.parametrize("value", ["1", None])
def test_colours_can_be_left_out(monkeypatch: pytest.MonkeyPatch, value: str | None):
    """NO_COLOR: what is told by colours is told by words, too, and no colour is written."""
    if value:
        monkeypatch.setenv("NO_COLOR", value)
    else:
        monkeypatch.delenv("NO_COLOR", raising=False)

    async def look(app: DisplayApp, _pilot: Any, _source: FakeSource) -> None:
        colours = {
            segment.style.color.name
            for strip in app.screen._compositor.render_strips()
            for filtered in [
                strip.apply_filter(one, app.screen.background_colors[1])
                for one in app.get_line_filters()
            ]
            or [strip]
            for segment in filtered
            if segment.style and segment.style.color and segment.style.color.name != "default"
        }
        assert bool(colours) == (value is None)

    see(look)
    assert os.environ.get("NO_COLOR") == value


def test_columns_stay_in_place():
    """Larger figures and new kinds of figures move nothing."""
    small = worker_row("mic", received=1, sent=1, cpu_percent=0.1)
    large = worker_row(
        "mic", received=9_999, sent=123_456, cpu_percent=99.0, lost=7, restarts=3, queued=12
    )

    async def look(app: DisplayApp, pilot: "Pilot[None]", source: FakeSource) -> None:
        before = await until_shown(app, pilot, "UPTIME")
        source.give(project(rows=(large,), failures=()))
        after = await until_shown(app, pilot, "9,999")
        heading = [line for line in before if line.startswith("NAME")]
        assert heading == [line for line in after if line.startswith("NAME")]

    see(look, project(rows=(small,), failures=()), (120, 40))
