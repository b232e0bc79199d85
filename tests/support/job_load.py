"""A load on a project: jobs and frames that are sent all the while, and what became of each."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from support.cli_env import PATIENCE_S, Place, wait_for

# Sends jobs and frames all the while, some with a key; writes what became of them.
_LOAD = """
import asyncio, collections, json, pathlib, sys
import pbus.client

target, begun, ended = sys.argv[1], pathlib.Path("begun"), pathlib.Path("ended")

async def main():
    errors, by, sent = collections.Counter(), collections.Counter(), 0
    frames, unsent = [], 0

    async def ask(n):
        key = f"call-{n % 7}" if n % 2 else None
        try:
            answer = await client.job(target, "echo", {"n": n}, timeout=30, key=key)
            by[answer["by"]] += answer["n"] == n
        except Exception as error:
            errors[f"{type(error).__name__}: {error}"] += 1

    async with pbus.client.connect() as client:
        while not ended.exists():
            tasks = [asyncio.ensure_future(ask(sent + i)) for i in range(8)]
            if "--frames" in sys.argv:
                try:
                    await client.send_text(target, f"frame-{sent}", key=f"call-{sent % 5}")
                    frames.append(f"frame-{sent}")
                except Exception as error:
                    errors[f"{type(error).__name__}: {error}"] += 1
            await asyncio.gather(*tasks)
            sent += 8
            begun.touch()
            await asyncio.sleep(0.02)  # as fast as it can be, it would take a core from other tests
    print(json.dumps({"sent": sent, "by": by, "errors": errors, "frames": frames}))

asyncio.run(main())
"""


class Load:
    """Figures of a load after its end."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}


@contextlib.contextmanager
def load(place: Place, target: str, *options: str) -> Iterator[Load]:
    """Jobs that are sent during a block; all of them are answered rightly at its end."""
    for name in ("begun", "ended"):
        (place.folder / name).unlink(missing_ok=True)
    result = Load()
    with subprocess.Popen(
        [sys.executable, "-c", _LOAD, target, *options],
        cwd=place.folder,
        env=place.cli.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            wait_for(lambda: (place.folder / "begun").exists() or program.poll() is not None)
            yield result
        finally:
            (place.folder / "ended").touch()
            out, err = program.communicate(timeout=2 * PATIENCE_S)
    assert 0 == program.returncode, err
    result.found = json.loads(out)
    assert {} == result.found["errors"]
    assert result.found["sent"] == sum(result.found["by"].values())
