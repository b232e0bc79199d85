"""Make the README's pictures from a real run of configs/voice, in tmux: `make pictures`.

PYTHONPATH=tests python .ci/pictures.py [FOLDER [WIDTH HEIGHT]]
"""

import contextlib
import io
import json
import re
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
def screen(place: Place, size: tuple[int, int], *arguments: str) -> Iterator[Screen]:
    """Run `pbus` in a terminal of its own until the block is left."""
    with tempfile.TemporaryDirectory(prefix="pbus-") as folder:
        made = Screen(Path(folder) / "tmux")
        variables = place.cli.environ.items()
        environ = [word for name, value in variables for word in ("-e", f"{name}={value}")]
        width, height = map(str, size)
        made.run(
            "new-session", "-d", "-x", width, "-y", height, "-c", str(place.folder), *environ,
            "-e", "COLORTERM=truecolor", PBUS, *arguments,
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


def main() -> None:
    """Bring the example up, have calls held, and keep what is shown of it."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".github" / "pictures"
    size = (int(sys.argv[2]), int(sys.argv[3])) if len(sys.argv) > 3 else (112, 32)
    with CliEnv() as home:
        home.environ["VOICE_CALLS"] = "0"
        place = home.place("voice", ROOT / "configs" / "voice")
        place.up("-d")
        picture_of_a_call(place, folder / "seq.svg")
        calls = [place.start(*call(*["how is the weather", "2 + 40"] * 400)) for _ in range(2)]
        for verb, sign in (("top", r"/s +[▁-█]{8}"), ("attach", r"(/s.*){4}")):
            with screen(place, size, verb) as shown:
                shown.until(sign)
                shown.save(folder / f"{verb}.svg", f"pbus {verb}", size)
        (folder / "graph.svg").write_text(place.run("graph", "--observed", "--format", "svg").out)
        for one in calls:
            one.kill()
    for path in sorted(folder.glob("*.svg")):
        print(f"wrote {path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
