"""The endpoint over real sockets: what it answers, and that no client can hold it up."""

import asyncio
import contextlib
import socket
import time

import pytest

from pbus.bus import AsyncQueueBus
from pbus.errors import BusUnavailableError, ListenError
from pbus.leases import Lease
from pbus.observe import HostRecord, ProcessRecord
from pbus.process.metrics import http_endpoint
from pbus.process.metrics.http_endpoint import HttpEndpoint, Response
from pbus.process.supervisor.metrics_server import MetricsServer, open_metrics
from pbus.stats.stats_record import EdgeCounts, StatsRecord, encode_stats
from pbus.topology.policy.policies import MetricsSpec
from support.waiting import run, until


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@contextlib.asynccontextmanager
async def endpoint(**routes):
    """An endpoint, and its port."""
    port = free_port()
    server = HttpEndpoint("127.0.0.1", port, {f"/{name}": route for name, route in routes.items()})
    await server.open()
    try:
        yield server, port
    finally:
        await server.close()


async def ask(port: int, request: bytes) -> bytes:
    """The whole response to some bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""
    finally:
        writer.close()


async def get(port: int, path: str, accept: str = "*/*") -> tuple[int, str]:
    """Status and body."""
    head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
    answer = await ask(port, head.encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def hello(request):
    return Response(200, f"{request.method} {request.accept}".encode())


@pytest.mark.parametrize(
    ("request_text", "status", "body"),
    [
        ("GET /a HTTP/1.1\r\nAccept: text/x\r\n\r\n", 200, "GET text/x"),
        ("GET /a?x=1 HTTP/1.0\r\n\r\n", 200, "GET "),
        ("HEAD /a HTTP/1.1\r\n\r\n", 200, ""),
        ("POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405, "only GET and HEAD\n"),
        ("GET /b HTTP/1.1\r\n\r\n", 404, "there is: /a /bad\n"),
        ("GET /../etc/passwd HTTP/1.1\r\n\r\n", 404, "there is: /a /bad\n"),
        ("GET /bad HTTP/1.1\r\n\r\n", 500, "a bug in pbus; see the log of the supervisor\n"),
        ("\r\n\r\n", 400, "no request of HTTP\n"),
        ("\x00\xff rubbish\r\n\r\n", 400, "no request of HTTP\n"),
        ("GET /a HTTP/1.1\r\n" + "X: " + "y" * 20_000 + "\r\n\r\n", 400, "no request of HTTP\n"),
    ],
)
def test_requests_are_answered(request_text, status, body):
    """What is asked for, or why not; the next client is served as ever."""

    async def bad(request):
        raise ZeroDivisionError(request.path)

    async def main():
        async with endpoint(a=hello, bad=bad) as (_, port):
            answer = await ask(port, request_text.encode("latin-1"))
            head, _, found = answer.partition(b"\r\n\r\n")
            if answer:  # a client that still sends when it is refused may miss the answer
                assert (status, body) == (int(head.split()[1]), found.decode())
            assert (200, "GET */*") == await get(port, "/a")

    run(main())


def test_clients_that_say_nothing_are_let_go(monkeypatch):
    """Many that connect and wait take no room for longer than a request may last."""
    monkeypatch.setattr(http_endpoint, "_READ_S", 0.05)
    monkeypatch.setattr(http_endpoint, "MAX_CONNECTIONS", 3)

    async def main():
        async with endpoint(a=hello) as (server, port):
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            await until(lambda: len(server._open) in {0, 3})
            assert {b""} == {await reader.read() for reader, _ in idle}
            await until(lambda: not server._open)
            assert (200, "GET */*") == await get(port, "/a")
            for _, writer in idle:
                writer.close()

    run(main())


def test_further_clients_are_refused(monkeypatch):
    """More than the bound at once are told so, not kept waiting."""
    monkeypatch.setattr(http_endpoint, "MAX_CONNECTIONS", 1)
    go = asyncio.Event()

    async def slow(request):
        await go.wait()
        return await hello(request)

    async def main():
        async with endpoint(a=slow) as (server, port):
            first = asyncio.create_task(get(port, "/a"))
            await until(lambda: server._open)
            assert (503, "too many connections\n") == await get(port, "/a")
            go.set()
            assert 200 == (await first)[0]

    run(main())


def test_a_slow_reader_holds_nothing_up(monkeypatch):
    """One that does not read its answer is dropped; meanwhile others are answered."""
    monkeypatch.setattr(http_endpoint, "_WRITE_S", 0.1)

    async def large(request):
        del request
        return Response(200, b"x" * 20_000_000)

    async def main():
        async with endpoint(a=hello, large=large) as (server, port):
            slow = socket.create_connection(("127.0.0.1", port))
            slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
            await until(lambda: server._open)
            assert (200, "GET */*") == await get(port, "/a")
            await until(lambda: not server._open)
            slow.close()

    run(main())


def test_a_port_in_use_is_an_error_that_says_so():
    """It names the address and the key of the topology."""

    async def main():
        async with endpoint(a=hello) as (_, port), contextlib.AsyncExitStack() as stack:
            spec = MetricsSpec("127.0.0.1", port)
            with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1:{port}") as caught:
                await open_metrics(stack, spec, AsyncQueueBus(), lambda: None)
            assert "metrics: {listen: HOST:PORT}" in caught.value.hint

    run(main())


def record(*processes):
    return HostRecord(
        project="shop",
        host="here",
        pid=1,
        session="s",
        time=time.time(),
        bus="",
        processes=processes,
    )


def lease(name, state="ready"):
    return Lease(
        name=name, incarnation="i.1", runner="r", host="here", pid=1, state=state, beat=time.time()
    )


def test_readiness_is_that_of_all_workers(monkeypatch):
    """Ready or done, as `up --wait` counts; else each that is not, with its state."""
    processes = [
        ProcessRecord(name="a", state="ready", pid=1, incarnation="i"),
        ProcessRecord(name="job", state="exited", joins=False, has_succeeded=True),
    ]

    async def main():
        bus = AsyncQueueBus()
        server = MetricsServer(bus, lambda: record(*processes))
        async with bus, endpoint(readyz=server.ready, livez=server.live) as (_, port):
            status, body = await get(port, "/readyz")
            assert (503, True) == (status, body.startswith("a: "))
            await bus.leases.claim(lease("a"))
            assert (200, "ready\n") == await get(port, "/readyz")
            processes.append(ProcessRecord(name="b", state="failed", reason="exit code 1"))
            assert (503, "b: failed\n") == await get(port, "/readyz")
            assert (200, "ok\n") == await get(port, "/livez")

    run(main())


def test_without_a_broker_it_is_live_and_not_ready(monkeypatch):
    """Counts are told again when the broker is back; what the supervisor knows is told meanwhile."""

    async def main():
        bus = AsyncQueueBus()
        server = MetricsServer(
            bus, lambda: record(ProcessRecord(name="a", state="ready", pid=1, incarnation="i"))
        )
        routes = {"readyz": server.ready, "livez": server.live, "metrics": server.metrics}
        async with bus, endpoint(**routes) as (_, port):
            await bus.leases.claim(lease("a"))
            edge = EdgeCounts(source="a", target="b", type="Note", sent=5)
            body = encode_stats(StatsRecord(incarnation="i", session=None, edges=[edge]))
            await bus.leases.put_stats("a", body, ttl_s=60)
            assert (
                'pbus_messages_sent_total{source="a",target="b",type="Note"} 5.0'
                in (await get(port, "/metrics"))[1]
            )

            async def away():
                raise BusUnavailableError("redis://gone", "no answer")

            monkeypatch.setattr(bus.leases, "leases", away)
            assert (503, "the broker is away\n") == await get(port, "/readyz")
            assert (200, "ok\n") == await get(port, "/livez")
            server._read_at = float("-inf")
            status, text = await get(port, "/metrics", "application/openmetrics-text")
            assert (200, True) == (status, "pbus_broker_connected 0.0" in text)
            assert 'pbus_worker_restarts_total{worker="a"} 0.0' in text

    run(main())


def test_scrapes_within_a_second_share_a_reading(monkeypatch):
    """Many scrapers cost the broker what one does."""
    reads = []

    async def main():
        bus = AsyncQueueBus()
        server = MetricsServer(bus, record)
        async with bus, endpoint(metrics=server.metrics) as (_, port):
            stats = bus.leases.stats

            async def counted():
                reads.append(1)
                return await stats()

            monkeypatch.setattr(bus.leases, "stats", counted)
            answers = await asyncio.gather(*(get(port, "/metrics") for _ in range(10)))
            assert {200} == {status for status, _ in answers}
            assert len(reads) <= 2

    run(main())
