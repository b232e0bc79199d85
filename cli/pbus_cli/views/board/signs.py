"""The keys and signs of the display, explained."""

from typing import Final

from rich.text import Text

from pbus.observe import State
from pbus_cli.views import colors

KEYS: Final = (
    ("1 … 6", "workers, traffic, logs, edges, jobs, dead letters (Tab)"),
    ("z", "only this pane, or all again"),
    ("↑ ↓ PgUp PgDn", "choose a line; traffic and logs pause there"),
    ("Home End", "first or last line; End follows the end again"),
    ("Space", "traffic, logs: pause, go on; workers: unfold a group"),
    ("Enter", "all that is known of the line; the whole message"),
    ("t", "the conversation of the message, as a diagram"),
    ("/", "filter this pane by words, !word: without it"),
    ("f", "fold messages that pass often, or show them one by one"),
    ("r", "restart the worker, or all replicas of the group"),
    ("s", "stop it; start it where it does not run"),
    ("+ -", "one replica more or less"),
    ("u U", "requeue the dead letter, or all of them"),
    ("?", "this"),
    ("q", "leave; asks where that ends the project"),
    ("Ctrl-C", "as of any command: leave, or stop all workers"),
    ("mouse", "wheel: scroll; click: choose; again: as Enter"),
)
SIGNS: Final = (
    ("a → b", "a message from a to b; * is everyone"),
    ("!", "it travels in the system lane, before data"),
    ("[key]", "the key that chose the replica"),
    ("(local)", "it stayed in its process; shown is a copy"),
    ("(reached no process)", "nothing received it"),
    ("▸ 50/s", "a busy edge: its rate instead of its messages"),
    ("▸ stt x4", "four replicas of stt, folded; ▾ unfolded"),
    ("▁▃█", "rates over the last minute, to the highest of them"),
    ("▰▰▱", "the share of a job that is done"),
    ("name *", "a line of pbus about the worker; | is its own"),
    ("‖", "paused: so many have come since"),
    ("…", "cut, or more than there is room for"),
)
STATES: Final[tuple[tuple[State, str], ...]] = (
    ("waiting", "for others that it needs, or their health"),
    ("starting", "its process runs and is not ready"),
    ("ready", "takes messages"),
    ("unhealthy", "its probe fails"),
    ("unresponsive", "no heartbeat: its event loop is blocked"),
    ("backoff", "ended, and is started again soon"),
    ("stopping", "was told to end"),
    ("exited", "ended as it should"),
    ("failed", "is not started again"),
)
_FIGURES: Final = (
    ("IN OUT", "messages received and sent"),
    ("LOST", "lost on the way to it, or reached no process"),
    ("QUEUED", "messages that wait in its process"),
    ("BACKLOG", "stored messages, also IN FLIGHT; OLDEST: their age"),
    ("RETRIES DEAD", "stored messages tried before; dead letters"),
    ("WAIT HANDLER", "times of 50, 95, 99 %: before handling, of it"),
    ("UNDELIVERED", "messages that reached no process"),
)
_WIDTH: Final = 21


def sign_lines() -> list[Text]:
    """All of them, under headings."""
    lines: list[Text] = []
    for title, pairs in (("keys", KEYS), ("signs", SIGNS), ("figures", _FIGURES)):
        lines.append(Text(title, style=colors.HEADING))
        lines += [Text.assemble(f"{sign:<{_WIDTH}}", (text, "")) for sign, text in pairs]
        lines.append(Text())
    lines.append(Text("states", style=colors.HEADING))
    for state, text in STATES:
        lines.append(
            Text.assemble((state, colors.STATES[state]), " " * (_WIDTH - len(state)), text)
        )
    return lines
