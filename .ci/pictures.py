"""Make the README's pictures from real runs of the examples, in tmux: `make pictures`.

PYTHONPATH=tests python .ci/pictures.py [FOLDER [WIDTH HEIGHT]]

By a Python that has Pipecat those of its examples are made, otherwise those of configs/voice.
"""

import contextlib
import importlib.util
import io
import json
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from support.cli_env import PBUS, CliEnv, Place, wait_for

ROOT = Path(__file__).parent.parent
FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
font-family="monospace" font-size="20">
<style>{styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""  # without the fonts that the usual one loads from elsewhere


class Screen:
    """A terminal of tmux with one command in it."""

    def __init__(self, socket: Path) -> None:
        self._words = ("tmux", "-S", str(socket), "-f", "/dev/null")

    def run(self, *words: str) -> str:
        """Run a command of tmux; its output."""
        done = subprocess.run([*self._words, *words], capture_output=True, check=True, text=True)  # noqa: S603
        return done.stdout

    def until(self, pattern: str) -> None:
        """Wait until this is shown."""
        wait_for(lambda: re.search(pattern, self.run("capture-pane", "-p"), re.DOTALL))

    def save(self, path: Path, title: str, size: tuple[int, int]) -> None:
        """Keep what is shown."""
        frame = self.run("capture-pane", "-p", "-e").rstrip("\n")
        width, height = size
        console = Console(
            record=True, width=width, height=height, file=io.StringIO(), color_system="truecolor",
            force_terminal=True,
        )  # fmt: skip
        console.print(Text.from_ansi(frame), end="", no_wrap=True, crop=True)
        text = console.export_svg(
            title=title, theme=SVG_EXPORT_THEME, code_format=FORMAT, unique_id=path.stem
        )
        path.write_text(
            "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"
        )


@contextlib.contextmanager
def screen(place: Place, size: tuple[int, int], *command: str) -> Iterator[Screen]:
    """Run a command in a terminal of its own until the block is left."""
    with tempfile.TemporaryDirectory(prefix="pbus-") as folder:
        made = Screen(Path(folder) / "tmux")
        variables = place.cli.environ.items()
        environ = [word for name, value in variables for word in ("-e", f"{name}={value}")]
        width, height = map(str, size)
        made.run(
            "new-session", "-d", "-x", width, "-y", height, "-c", str(place.folder), *environ,
            "-e", "COLORTERM=truecolor", *command,
        )  # fmt: skip
        try:
            yield made
        finally:
            made.run("kill-server")


def call(*lines: str) -> tuple[str, ...]:
    """The words that hold a call with these lines."""
    data = json.dumps({"lines": lines})
    return "send", "caller", "--job", "call", "--data", data, "--wait"


def picture_of_a_call(place: Place, path: Path) -> None:
    """A call of two lines, and the death of a tool that was asked for the first one."""
    seq = place.start("seq", "--format", "svg")
    place.until_followed(1)
    tools = psutil.Process(place.rows()["tools"]["pid"])
    tools.send_signal(signal.SIGSTOP)  # so that the job is open when it dies
    calling = place.start(*call("2 + 40", "bye"))
    wait_for(lambda: "add" in place.tell("jobs").out)
    tools.kill()
    place.until(lambda rows: rows["tools"]["state"] == "ready" and rows["tools"]["restarts"] == 1)
    calling.done()
    path.write_text(seq.end().out)


def pictures_of_voice(folder: Path, size: tuple[int, int]) -> None:
    """Have calls held, and keep what is shown of them."""
    with CliEnv() as home:
        home.environ["VOICE_CALLS"] = "0"
        place = home.place("voice", ROOT / "configs" / "voice")
        place.up("-d")
        picture_of_a_call(place, folder / "seq.svg")
        calls = [place.start(*call(*["how is the weather", "2 + 40"] * 400)) for _ in range(2)]
        for verb, sign in (("top", r"/s +[▁-█]{8}"), ("attach", r"(/s.*){4}")):
            with screen(place, size, PBUS, verb) as shown:
                shown.until(sign)
                shown.save(folder / f"{verb}.svg", f"pbus {verb}", size)
        (folder / "graph.svg").write_text(place.run("graph", "--observed", "--format", "svg").out)
        for one in calls:
            one.kill()


def picture_of_pipecat(
    example: str, tail: tuple[str, ...], sends: list[tuple[str, ...]], last: str, folder: Path
) -> None:
    """`ps` and `tail` of an example, below each other."""
    commands = (("ps",), ("tail", *tail))
    lines = [f"echo '$ pbus {shlex.join(one)}'; {shlex.join((PBUS, *one))}" for one in commands]
    columns, path = 112, folder / f"{example}.svg"
    with CliEnv() as home:
        home.environ["PATH"] = f"{Path(PBUS).parent}:{home.environ['PATH']}"
        place = home.place(example, ROOT / "configs" / example)
        place.up("-d", "--wait")
        with screen(place, (columns, 40), "sh", "-c", "; echo; ".join(lines)) as shown:
            shown.until("following")
            for words in sends:
                place.run("send", *words, "--wait")
            shown.until(last)
            height = shown.run("capture-pane", "-p").rstrip().count("\n") + 1
            shown.save(path, f"pbus ps and pbus tail of {example}", (columns, height))


def pictures_of_pipecat(folder: Path) -> None:
    """Pipecat's handoff in three processes, and a worker of pbus as the tool of its model."""
    texts = ["Hello", "I need help with my order", "It is broken"]
    says = [("main", "--job", "say", "--data", json.dumps({"text": text})) for text in texts]
    kinds = ("type=PipelineFlushFrame", "type=WorkerRegistry")
    tail = tuple(word for kind in kinds for word in ("--exclude", kind))
    picture_of_pipecat("pipecat-handoff", tail, says, "(JobResponse.*){3}", folder)
    ask = ("assistant", "--job", "ask", "--data", '{"text": "bus"}')
    tail = ("--category", "job")
    picture_of_pipecat("pipecat-mixed", tail, [ask], "(JobResponse.*){2}", folder)


def main() -> None:
    """Bring examples up, and keep what is shown of them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".github" / "pictures"
    size = (int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 3 else (112, 32)
    if importlib.util.find_spec("pipecat"):
        pictures_of_pipecat(folder)
    else:
        pictures_of_voice(folder, size)
    for path in sorted(folder.glob("*.svg")):
        print(f"wrote {path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
