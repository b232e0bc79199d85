"""What is printed of what others wrote."""

import io
import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from pbus_cli.live.printer import LinePrinter, stream_writer
from pbus_cli.live.terminal_console import CleanConsole
from pbus_cli.terminal import console, logging_setup
from pbus_cli.terminal.clean import clean, clean_json, clean_line, own

WILD = "a\x1b]52;c;ZXZpbA==\x07b\x1b[2Jc\rd\x9b31me\u202ef\u2066g\x00h\x7fi\x08j"
CONTROLS = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))]
CONTROLS += list(
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    "\xad\u180e\u200b\u2060\u2064\u206a\u206f\ufeff\ufff9\ufffb\U000e0001\U000e0041\U000e007f"  # not seen
)


def is_fit(text: str) -> bool:
    """Whether a terminal acts on nothing in it."""
    return not any(control in text for control in CONTROLS)


@given(st.text())
def test_nothing_that_a_terminal_acts_on_is_left(text: str):
    """Whatever the text, and all of it that can be seen is still there."""
    assert is_fit(clean(text))
    assert is_fit(clean_line(text))
    assert not set("\n\t") & set(clean_line(text))
    assert [c for c in text if c.isalpha() and not c.isascii()] == [
        c for c in clean(text) if c.isalpha() and not c.isascii()
    ]


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_usual_text_is_unchanged(text: str):
    """Characters of every script, emoji and signs."""
    assert text == clean(text) == clean_line(text)


@given(st.recursive(st.text() | st.integers(), st.lists), st.text())
def test_json_says_the_same(value: object, key: str):
    """Escaped, and read back as it was."""
    text = json.dumps({key: value}, ensure_ascii=False)

    assert {key: value} == json.loads(clean_json(text))
    assert not any(control in clean_json(text) for control in CONTROLS[33:])


def test_unseen_characters_are_shown():
    """A name that looks like another, and text that only programs read, are seen; emoji stay whole."""
    assert r"a\u200bdmin" == clean("a\u200bdmin")
    assert r"\U000e0068\U000e0069 hi" == clean_line("\U000e0068\U000e0069 hi")
    assert r'"\udb40\udc68"' == clean_json('"\U000e0068"')
    assert "\U0001f469\u200d\U0001f4bb" == clean("\U0001f469\u200d\U0001f4bb")


def test_own_colours_pass():
    """Sequences of pbus itself reach the terminal, those in the text beside them do not."""
    painted = own("\x1b[1m") + "bold\x1b[5m" + own("\x1b[0m")

    assert "\x1b[1mbold\\x1b[5m\x1b[0m" == clean(painted)


@pytest.mark.parametrize("say", [console.say, console.note, console.warn, console.fail])
def test_every_word_of_a_command_is_clean(say, capsys):
    """Data, remarks, warnings and errors."""
    say(WILD)
    told = "".join(capsys.readouterr())

    assert is_fit(told)
    assert all(char in told for char in "abcdefghij")


def test_hints_are_clean(capsys):
    """What to do about an error may name what strangers named."""
    console.fail("x", WILD)

    assert is_fit(capsys.readouterr().err)


def test_json_of_a_command_is_clean(capsys):
    """Its readers get what was meant."""
    console.say_json({WILD: [WILD]})
    told = capsys.readouterr().out

    assert is_fit(told)
    assert {WILD: [WILD]} == json.loads(told)


def test_printed_lines_are_clean():
    """Those of `tail`, `events`, `logs -f` and `up --plain`, which a thread prints."""
    stream = io.StringIO()
    printer = LinePrinter(stream_writer(stream))
    printer.put(WILD)
    printer.close()

    assert is_fit(stream.getvalue())


def test_drawn_text_is_clean():
    """Whatever a display is given."""
    stream = io.StringIO()
    CleanConsole(file=stream, width=200, force_terminal=False).print(Text(WILD))

    assert is_fit(stream.getvalue())


def test_warnings_of_the_library_are_clean(monkeypatch):
    """They name senders, workers and jobs."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logging_setup.show_on_stderr()
        logging.getLogger("pbus.test").warning("refused: %s", WILD)
    finally:
        root.handlers[:] = before
        root.setLevel(level)

    assert "refused" in stream.getvalue()
    assert is_fit(stream.getvalue())
