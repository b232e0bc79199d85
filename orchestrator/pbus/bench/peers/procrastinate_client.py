"""The same jobs with procrastinate, whose queues are a table of Postgres, woken by NOTIFY.

Jobs are deferred 100 a call, as its documentation advises for many, and run 100 at once. It keeps no
results: a round trip is a job that defers one back. All is in a schema of its own.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from procrastinate import App, PsycopgConnector

from pbus.bench.meter import Meter
from pbus.bench.peers.left_behind import schema_of
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.roles import DelayResult, RoleConfig, Stopwatch
from pbus.concurrency.background import running

_WARM_UP = 20  # jobs before the clock starts
_AT_ONCE = 100
_ANSWER_S = 10.0
_LOCK = 7_465_001  # of the schema while it is made


@contextlib.asynccontextmanager
async def _app(config: RoleConfig) -> AsyncIterator[Any]:
    """The application, and its tables where they are not there yet."""
    options = f"-c search_path={schema_of(config.bus.channel)},public"
    connector = PsycopgConnector(conninfo=config.bus.url, kwargs={"options": options})
    app = App(connector=connector)
    async with app.open_async():
        yield app


async def _make_tables(app: Any, config: RoleConfig) -> None:
    """Make them, once for both processes."""
    async with app.connector.pool.connection() as connection:
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        made = await connection.execute(
            "SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema_of(config.bus.channel)]
        )
        if await made.fetchone() is None:
            await connection.execute(f"CREATE SCHEMA {schema_of(config.bus.channel)}")
            await connection.execute(app.schema_manager.get_schema())


@contextlib.asynccontextmanager
async def _working(app: Any, config: RoleConfig) -> AsyncIterator[None]:
    """Run a worker of the queue within the block."""
    worker = app.run_worker_async(
        queues=[config.name],
        concurrency=_AT_ONCE,
        delete_jobs="always",
        install_signal_handlers=False,
        shutdown_graceful_timeout=0,
    )
    async with running(worker):
        yield


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: enqueue jobs."""
    text = "x" * config.size
    async with _app(config) as app:
        await _make_tables(app, config)
        job = app.configure_task("count", queue=config.targets[0])
        control.send_ready()
        await control.receive()
        watch = Stopwatch()
        for first in range(0, config.count, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, config.count))
            await job.batch_defer_async(*({"number": one, "text": text} for one in numbers))
        control.send(watch.sent(config.count))


async def receive(config: RoleConfig, control: ControlPipe) -> None:
    """Role: do jobs, and count them."""
    meter = Meter(config.count)

    async def count(number: int, text: str) -> None:
        del text
        meter.record(number)

    async with _app(config) as app:
        await _make_tables(app, config)
        app.task(name="count")(count)
        async with _working(app, config):
            control.send_ready()
            control.send(await meter.result(control))


async def ping(config: RoleConfig, control: ControlPipe) -> None:
    """Role: defer one job after another, and wait for the one that comes back."""
    text, delays, back = "x" * config.size, [], asyncio.Event()

    async def echo(text: str) -> None:
        del text
        back.set()

    async with _app(config) as app:
        await _make_tables(app, config)
        app.task(name="echo")(echo)
        job = app.configure_task("echo", queue=config.targets[0])
        async with _working(app, config):
            control.send_ready()
            await control.receive()
            cpu = time.process_time()
            for number in range(-_WARM_UP, config.count):
                if number == 0:
                    cpu = time.process_time()
                started = time.perf_counter()
                await job.defer_async(text=text)
                async with asyncio.timeout(_ANSWER_S):
                    await back.wait()
                back.clear()
                delays.append(time.perf_counter() - started)
            control.send(DelayResult(delays=delays[_WARM_UP:], cpu_s=time.process_time() - cpu))


async def pong(config: RoleConfig, control: ControlPipe) -> None:
    """Role: defer each job back, until the pool is gone."""
    async with _app(config) as app:
        await _make_tables(app, config)
        job = app.configure_task("echo", queue=config.targets[0])

        async def echo(text: str) -> None:
            await job.defer_async(text=text)

        app.task(name="echo")(echo)
        async with _working(app, config):
            control.send_ready()
            await control.receive()
