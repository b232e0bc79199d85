"""Output that cannot be written: it is said, it counts as a failure, and it ends no worker."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from support.cli_env import PATIENCE_S, PBUS, CliEnv, Place, wait_for

pytestmark = pytest.mark.cli

FULL = "/dev/full"
_LIMIT_BYTES = 200 * 1024
SAID = "the output cannot be written: No space left on device"
TOPOLOGY = """
bus: {backend: redis}
workers:
  chatty: {command: [sh, -c, "until [ -e enough ]; do echo word; sleep 0.1; done"]}
"""


@contextlib.contextmanager
def streams(out: str, err: str) -> Iterator[dict[str, IO[bytes]]]:
    """Two files to write to."""
    with Path(out).open("wb") as stdout, Path(err).open("wb") as stderr:
        yield {"stdout": stdout, "stderr": stderr}


def code_of(place: Place, *arguments: str, out: str, err: str) -> int:
    """The exit code of a verb that writes there."""
    with streams(out, err) as files:
        return subprocess.run(
            [PBUS, *arguments],
            cwd=place.folder,
            env=place.cli.environ,
            timeout=PATIENCE_S,
            check=False,
            **files,
        ).returncode


@pytest.mark.parametrize(
    "arguments",
    [("ps", "--json"), ("logs", "-f", "clerk"), ("ls",), ("--help",), ("completion", "bash")],
    ids=" ".join,
)
def test_full_disk_is_an_error(sample: Place, tmp_path: Path, arguments: tuple[str, ...]):
    """Data that was not written: code 1, a reason, and no trace."""
    err = tmp_path / "err"
    code = code_of(sample, *arguments, out=FULL, err=str(err))

    assert 1 == code
    assert err.read_text().endswith(f"error: {SAID}\n")  # remarks on others may stand before it
    assert "Traceback" not in err.read_text()


@pytest.mark.parametrize(
    ("out", "code"), [(FULL, 1), (os.devnull, 0)], ids=["both are full", "only remarks are lost"]
)
def test_remarks_are_not_needed(sample: Place, out: str, code: int):
    """A remark that cannot be written changes nothing."""
    arguments = ("ls",) if out == FULL else ("send", "clerk", "--text", "x")

    assert code == code_of(sample, *arguments, out=out, err=FULL)


@pytest.mark.parametrize("err", ["err", FULL])
def test_full_disk_ends_no_worker(cli: CliEnv, err: str):
    """`up` goes on without its output, says so, and tells it by its code at the end."""
    place = cli.place(f"chatty-{len(err)}", {"topology.yaml": TOPOLOGY})
    path = place.folder / err  # /dev/full is absolute
    with streams(FULL, str(path)) as files:
        process = subprocess.Popen(
            [PBUS, "up", "--plain"], cwd=place.folder, env=cli.environ, **files
        )
    wait_for(lambda: place.logs("chatty").count("word") > 5)  # of them several were lost
    assert process.poll() is None
    (place.folder / "enough").touch()

    assert 1 == process.wait(PATIENCE_S)
    assert "exited with code 0" in place.logs("chatty")
    if err != FULL:
        said = path.read_text()
        assert 1 == said.count("the workers go on")
        assert SAID in said


def test_full_disk_of_logs_ends_no_worker(cli: CliEnv):
    """In the background, where logs cannot be written: worker, supervisor and verbs go on.

    A limit for the size of files stands for the full disk: the logs are larger, all else is not.
    """
    place = cli.place("mute", {"topology.yaml": TOPOLOGY})
    place.up()
    logs = place.record_path().parent / "logs"
    assert place.tell("down").code == 0
    paths = (logs / "supervisor.log", logs / "workers" / "chatty.log")
    for path in paths:
        path.write_text("x" * (_LIMIT_BYTES - 1) + "\n")
    limited = f"ulimit -f {_LIMIT_BYTES // 512}; exec {PBUS} up --wait"
    done = subprocess.run(
        ["sh", "-c", limited],
        cwd=place.folder, env=cli.environ, capture_output=True, text=True,
        timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    (place.folder / "enough").touch()
    wait_for(lambda: place.tell("ps").code == 3)
    wait_for(lambda: not cli.processes())

    assert [_LIMIT_BYTES] * len(paths) == [path.stat().st_size for path in paths]
