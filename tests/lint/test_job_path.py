"""A job there and back: the files of pbus whose functions it runs."""

import asyncio
import sys
from pathlib import Path

import pbus
from pbus import AsyncQueueBus, BaseWorker, WorkerRunner, job
from support.waiting import run

ROOT = Path(pbus.__file__).parent
MOST_FILES = 22  # two of them count it, two tell its trace


class Adder(BaseWorker):
    """Answers jobs at once."""

    @job(name="add")
    async def add(self, request):
        return {"sum": sum(request.payload["of"])}


async def ask(asker):
    async with asker.job("adder", name="add", payload={"of": [1, 2]}) as adding:
        pass
    return adding.response


async def files_of_a_job():
    """The files that one job walks between two workers of one process, each with its functions."""
    walked = {}

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)):
            file = Path(code.co_filename).relative_to(ROOT).as_posix()
            walked.setdefault(file, set()).add(code.co_qualname)

    asker = BaseWorker("asker")
    runner = WorkerRunner(bus=AsyncQueueBus(), handle_sigint=False)
    await runner.add_workers(asker, Adder("adder"))
    running = asyncio.create_task(runner.run())
    await asyncio.gather(*map(runner.registry.wait_ready, ("asker", "adder")))
    await ask(asker)  # what is found out once is known then
    before = sys.getprofile()
    sys.setprofile(note)
    try:
        response = await ask(asker)
    finally:
        sys.setprofile(before)
    await asker.end()
    await running
    assert {"sum": 3} == response
    return walked


def test_a_job_walks_few_files():
    """The way of a job to its handler, and of the answer back, leads through at most 22 files."""
    walked = run(files_of_a_job())
    assert len(walked) <= MOST_FILES, sorted(walked)


if __name__ == "__main__":
    for path, functions in sorted(asyncio.run(files_of_a_job()).items()):
        print(path, *sorted(functions))
