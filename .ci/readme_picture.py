"""Make the README's picture from a real run: PYTHONPATH=tests python .ci/readme_picture.py [WIDTH HEIGHT [FILE]]."""

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from support.cli_env import CliEnv
from support.terminal import terminal

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / ".github" / "up.svg"
HOME_OF_CURSOR = "\x1b[H"  # each frame of a live display begins with it


def main() -> None:
    """Bring the quickstart up on a terminal, let it work, and keep its last frame."""
    width, height = (int(word) for word in sys.argv[1:3] or ("104", "26"))
    path = Path(sys.argv[3]) if len(sys.argv) > 3 else PICTURE
    with CliEnv() as home:
        place = home.place("quickstart", ROOT / "configs" / "quickstart")
        with terminal(place, "up", rows=height, columns=width) as screen:
            screen.until("ready to search")
            print(place.ask("librarian", "search", {"query": "priority queue", "limit": 3}))
            screen.until('job_name="search"')
            shown = len(screen.written)
            screen.until("ready")
            while screen.written.count(HOME_OF_CURSOR, shown) < 3:  # whole frames
                screen.text()
            frame = screen.written.split(HOME_OF_CURSOR)[-2].replace("\r\n", "\n")
            screen.press("\x03")
            screen.code()
    console = Console(record=True, width=width, height=height, file=io.StringIO())
    console.print(Text.from_ansi(frame), end="")
    console.save_svg(str(path), title="pbus up", theme=MONOKAI)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
