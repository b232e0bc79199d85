"""A plain script whose worker hangs: hanging_program.py HOW. It says "hangs" on stdout just before."""

import asyncio
import collections
import faulthandler
import itertools
import os
import signal
import sys
import threading
import time

from pbus import BaseWorker, WorkerRunner
from pbus.runner.stack_dump import NUMBER


class Hanging(BaseWorker):
    """Hangs as soon as it is active."""

    async def on_activated(self, args):
        await asyncio.sleep(0)
        await self.hang(sys.argv[1])

    async def hang(self, how):
        print("hangs", flush=True)
        if how == "waits":
            await asyncio.gather(
                wait_long("one"), asyncio.create_task(wait_long("two"), name="two")
            )
        elif how == "sleeps":
            sleep_long()
        elif how == "computes":
            while True:
                pass
        elif how == "in C":
            collections.deque(itertools.repeat(None), maxlen=0)  # without a look at signals
        elif how == "forks":
            child = os.fork()
            if child == 0:
                sleep_long()
            print(child, flush=True)
            await asyncio.sleep(600)
        elif how == "own signals":
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR2)
            print("still here", flush=True)
            await asyncio.sleep(600)


def sleep_long():
    """Block."""
    time.sleep(600)


async def wait_long(what):
    """Wait with a name on the stack."""
    await asyncio.sleep(600, what)


async def main():
    """Host the worker."""
    runner = WorkerRunner()
    await runner.add_workers(Hanging("hanging"))
    await runner.run()


if __name__ == "__main__":
    threading.Thread(target=time.sleep, args=(600,), name="helper", daemon=True).start()
    faulthandler.register(signal.SIGUSR1, file=sys.stdout)
    signal.signal(signal.SIGUSR2, lambda *_: print("own handler", flush=True))
    if sys.argv[1] == "takes it":
        signal.signal(NUMBER, lambda *_: print("taken", flush=True))
    if sys.argv[1] == "never":
        print("hangs", flush=True)
        time.sleep(600)
    asyncio.run(main())
