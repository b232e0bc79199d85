"""A process whose wall clock is wrong: its environment, for subprocesses and for `env:` of a worker.

`time.time()` and `time.time_ns()` are moved, `datetime` and the kernel's clock are not.
"""

import os
from pathlib import Path

_SITE = """\
import os
import time

_moved_s = float(os.environ["PBUS_TEST_CLOCK_S"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _moved_s
time.time_ns = lambda: _time_ns() + int(_moved_s * 1e9)
"""


def moved_clock(seconds: float, folder: Path) -> dict[str, str]:
    """The variables that put the clock of a Python process ahead by so many seconds.

    Args:
        seconds: Negative: behind.
        folder: Any; gets a file.
    """
    site = folder / "moved_clock"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(_SITE)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PBUS_TEST_CLOCK_S": str(seconds)}
