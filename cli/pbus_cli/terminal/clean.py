"""Cleaning of foreign text before it reaches a terminal.

Messages, errors, log lines and names are written by any program that reaches the bus. A terminal acts on
control characters (it moves the cursor, sets the clipboard, answers on its input) and reorders text
behind bidirectional marks, and of some characters nothing is seen; so all that is printed goes
through `clean`.
"""

import json
import re
from typing import Final

# Stands for ESC in sequences of our own. No text from outside has it: it is half a character, and not
# one of those that stand for bytes of file names.
OWN_ESCAPE: Final = "\udc1b"

# Bidirectional marks, and what is not seen; joiners stay, which emoji and scripts need.
_HIDDEN: Final = r"\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_UNSAFE: Final = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_HIDDEN}]")
_UNSAFE_IN_LINE: Final = re.compile(rf"[\x00-\x1f\x7f-\x9f{_HIDDEN}]")
_UNSAFE_IN_JSON: Final = re.compile(rf"[\x7f-\x9f{_HIDDEN}]")  # JSON escapes the others itself
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)")


def clean(text: str) -> str:
    """A text fit for a terminal: control characters but line ends and tabs are shown, not done."""
    if _UNSAFE.search(text):
        text = _UNSAFE.sub(_shown, text)
    return text.replace(OWN_ESCAPE, "\x1b")


def clean_line(text: str) -> str:
    """A text fit for one line, or a cell of a table: line ends and tabs are shown, too."""
    return _UNSAFE_IN_LINE.sub(_shown, text) if _UNSAFE_IN_LINE.search(text) else text


def clean_json(text: str) -> str:
    """JSON that says the same, in characters that a terminal only shows."""
    return _UNSAFE_IN_JSON.sub(_escaped, text) if _UNSAFE_IN_JSON.search(text) else text


def without_sequences(text: str) -> str:
    """A line as it was meant, without the colours and moves of the cursor that a program put in."""
    return _SEQUENCE.sub("", text) if "\x1b" in text else text


def without_controls(text: str) -> str:
    """A line without control characters, where there is no room to show them."""
    return _UNSAFE_IN_LINE.sub("", text)


def own(sequence: str) -> str:
    """A sequence of our own, which `clean` lets pass."""
    return sequence.replace("\x1b", OWN_ESCAPE)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code <= 0xFF:  # noqa: PLR2004 - a byte's
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - two bytes'


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
