"""Each kind of connection that a URL can ask for, on a real server: sockets, TLS, users, clusters."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from pbus import BaseWorker, WorkerRunner, connect, job
from pbus.bus.redis import RedisBus
from pbus.errors import BusUnavailableError, JobTimeoutError
from pbus.messages import BusControlRequestMessage, BusDataMessage, BusSystemMessage
from support.cluster import ValkeyCluster
from support.listeners import Listener
from support.rights import documented_rights
from support.tls import Authority, TlsDoor
from support.valkey import Valkey
from support.waiting import PATIENCE_S, run, until

pytestmark = pytest.mark.redis

# What a user needs for the channel "pbus:shop", as the README says it.
AT_MOST_ONCE = "at-most-once"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a handshake takes is the machine's affair."""
    for module in ("connections", "server.endpoint"):
        monkeypatch.setattr(f"pbus.bus.redis.{module}.CONNECT_TIMEOUT_S", PATIENCE_S)


class KindlyNote(BusDataMessage):
    """Something with bytes in it."""

    content: bytes


class Alarm(BusSystemMessage):
    """Something urgent."""


class Shop(BaseWorker):
    """Doubles a number, and can be told to rest."""

    @job(name="double")
    async def double(self, request):
        return {"is": 2 * request.payload["number"]}


@contextlib.asynccontextmanager
async def shop(url: str, channel: str, delivery: str = AT_MOST_ONCE) -> AsyncIterator[None]:
    """A process with a worker, as far as the bus can tell."""
    bus = connect(url, channel=channel, delivery=delivery)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    await runner.add_workers(Shop("shop"))
    running = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        await runner.cancel("the test is over")
        async with asyncio.timeout(10):
            await running


async def works(
    url: str, channel: str, other: str | None = None, delivery: str = AT_MOST_ONCE
) -> None:
    """See that everything a bus does works between two processes: each may have a URL of its own."""
    here, there = (connect(one, channel=channel, delivery=delivery) for one in (url, other or url))
    listener = Listener("w")
    await there.subscribe(listener)
    async with here, there, here.tap() as tap, shop(other or url, channel, delivery):
        await here.send(KindlyNote(source="a", target="w", content=bytes(range(256))))
        await here.send(Alarm(source="a"))
        heard = listener.messages  # news of the shop are among them
        await until(lambda: {KindlyNote, Alarm} <= {type(message) for message in heard})
        assert bytes(range(256)) in [getattr(message, "content", None) for message in heard]
        async with asyncio.timeout(PATIENCE_S):
            async for item in tap:
                if item.header.type == "KindlyNote":
                    break
        await asks_shop(url, channel, delivery)
        await here.leases.put_record("s", b"x", ttl_s=60)
        assert {"s": b"x"} == await there.leases.records()
        await there.leases.drop_record("s")
        assert ["shop"] == [lease.name for lease in await here.leases.leases()]
        assert (0, 0) == (here.counters.undelivered, there.counters.lost)


async def shop_answers_again(url: str, channel: str) -> None:
    """Ask until the shop has followed its slot: what is under way meanwhile may be lost."""
    bus = connect(url, channel=channel)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    asker = BaseWorker("asker")
    await runner.add_workers(asker)
    running = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(20):
            while True:
                options = {"name": "double", "payload": {"number": 21}, "timeout": 2}
                with contextlib.suppress(JobTimeoutError):
                    async with asker.job("shop", **options) as asked:
                        pass
                    assert {"is": 42} == asked.response
                    return
    finally:
        await runner.cancel("enough")
        async with asyncio.timeout(10):
            await running


async def asks_shop(url: str, channel: str, delivery: str = AT_MOST_ONCE) -> None:
    """Do a job at the shop and have it rest, from a runner of one's own."""
    bus = connect(url, channel=channel, delivery=delivery)
    runner = WorkerRunner(bus=bus, handle_sigint=False)
    asker = BaseWorker("asker")
    await runner.add_workers(asker)
    running = asyncio.create_task(runner.run())
    try:
        async with asker.job("shop", name="double", payload={"number": 21}, timeout=10) as asked:
            pass
        assert {"is": 42} == asked.response
        await asker.deactivate_worker("shop")
        async with asyncio.timeout(PATIENCE_S):
            while await runner.bus.leases.activation("shop") is None:
                await asyncio.sleep(0.01)
    finally:
        await runner.cancel("enough")
        async with asyncio.timeout(10):
            await running


# Unix sockets


def test_unix_socket(valkey: Valkey, channel: str):
    """unix:///path, as the embedded broker uses it."""
    run(works(valkey.url, channel))


def test_unix_socket_with_database(valkey: Valkey, channel: str):
    """unix:///path?db=1."""
    run(works(f"{valkey.url}?db=1", channel))


# Databases


@pytest.mark.parametrize("delivery", [AT_MOST_ONCE, "at-least-once"])
@pytest.mark.parametrize("database", [0, 1])
def test_databases_keep_apart(valkey: Valkey, channel: str, database: int, delivery: str):
    """Two deployments of one name on two databases never hear, count or follow each other."""
    urls = [f"{valkey.tcp_url}/{number}" for number in (database, 1 - database)]

    async def main() -> None:
        here, there, stranger = (
            connect(url, channel=channel, delivery=delivery) for url in (urls[0], *urls)
        )
        mine, foreign = Listener("w"), Listener("w")
        await there.subscribe(mine)
        await stranger.subscribe(foreign)
        async with here, there, stranger, stranger.tap() as tap:
            order = BusControlRequestMessage(
                source="cli", request_id="1", action="stop", workers=("w",)
            )
            for message in (
                KindlyNote(source="a", target="w", content=b"1"),
                KindlyNote(source="a", content=b"2"),
                Alarm(source="a"),
                order,
            ):
                await here.send(message)
            await until(lambda: 4 == len(mine.messages))
            await stranger.send(KindlyNote(source="b", target="w", content=b"last"))
            async with asyncio.timeout(PATIENCE_S):
                followed = await anext(aiter(tap))

            assert "b" == followed.header.source
            assert ["b"] == [message.source for message in await foreign.heard(1)]
            assert 0 == here.counters.undelivered + there.counters.lost + stranger.counters.lost

    run(main())


def test_databases_of_handed_clients(valkey: Valkey, channel: str):
    """A client that was made for a database keeps to it, too, and meets the URL's processes."""

    async def main() -> None:
        client = Redis(port=valkey.port, db=3)
        here, other = RedisBus(redis=client, channel=channel), connect(valkey.url, channel=channel)
        there = connect(f"{valkey.tcp_url}/3", channel=channel)
        mine, foreign = Listener("w"), Listener("w")
        await there.subscribe(mine)
        await other.subscribe(foreign)
        async with here, there, other:
            await here.send(KindlyNote(source="a", content=b"1"))
            await mine.heard(1)
            await other.send(KindlyNote(source="b", content=b"2"))

            assert ["b"] == [message.source for message in await foreign.heard(1)]

    run(main())


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs this module's certificates."""
    return Authority(tmp_path_factory.mktemp("ca"))


def test_tls(valkey: Valkey, channel: str, authority: Authority):
    """rediss:// with the authority that signed the server's certificate."""

    async def main() -> None:
        async with TlsDoor(valkey.socket, authority) as door:
            await works(f"rediss://localhost:{door.port}?ssl_ca_certs={authority.path}", channel)

    run(main())


def test_tls_with_client_certificate(valkey: Valkey, channel: str, authority: Authority):
    """A server that asks for a certificate gets it from the URL."""
    certificate, key = authority.issue("client")

    async def main() -> None:
        async with TlsDoor(valkey.socket, authority, asks=True) as door:
            await works(
                f"rediss://localhost:{door.port}?ssl_ca_certs={authority.path}"
                f"&ssl_certfile={certificate}&ssl_keyfile={key}",
                channel,
            )

    run(main())


def test_tls_unknown_authority_refused(valkey: Valkey, channel: str, authority: Authority):
    """A server with an untrusted certificate is not spoken to, and the error says why."""

    async def main() -> None:
        async with TlsDoor(valkey.socket, authority) as door:
            bus = connect(f"rediss://localhost:{door.port}", channel=channel)
            with pytest.raises(BusUnavailableError, match="certificate"):
                await bus.start(timeout=3)

    run(main())


@pytest.mark.parametrize(
    ("issued", "options", "problem"),
    [
        (("DNS:localhost", 1), "", None),
        (("DNS:elsewhere.example", 1), "", "certificate.*localhost"),
        (("DNS:elsewhere.example", 1), "&ssl_check_hostname=false", None),
        (("DNS:localhost", -1), "", "certificate.*expired"),
    ],
)
def test_tls_certificate_is_checked(
    valkey: Valkey, channel: str, authority: Authority, issued, options, problem
):
    """A certificate must be the host's own and not expired, unless the URL says otherwise."""
    certificate = authority.issue("other", *issued)

    async def main() -> None:
        async with TlsDoor(valkey.socket, authority, certificate=certificate) as door:
            url = f"rediss://localhost:{door.port}?ssl_ca_certs={authority.path}{options}"
            if problem is None:
                await works(url, channel)
                return
            bus = connect(url, channel=channel)
            with pytest.raises(BusUnavailableError, match=problem):
                await bus.start(timeout=3)

    run(main())


def test_tls_heals(valkey: Valkey, channel: str, authority: Authority):
    """Connections come back over TLS as over any other path."""

    async def main() -> None:
        door = TlsDoor(valkey.socket, authority)
        listener = Listener("w")
        async with contextlib.AsyncExitStack() as stack:
            async with door:
                url = f"rediss://localhost:{door.port}?ssl_ca_certs={authority.path}"
                bus = connect(url, channel=channel)
                await bus.subscribe(listener)
                await stack.enter_async_context(bus)
                await bus.send(KindlyNote(source="a", target="w", content=b"1"))
                await listener.heard(1)
            await bus.send(KindlyNote(source="a", target="w", content=b"2"))
            await stack.enter_async_context(door)

            assert [b"1", b"2"] == [message.content for message in await listener.heard(2)]

    run(main())


# Users


@pytest.fixture
def guarded() -> Iterator[Valkey]:
    """A server where only the users that a test makes may do anything."""
    with Valkey(tcp=True) as server:
        yield server


def make_user(server: Valkey, *rules: str) -> None:
    """A user "app" with the password "secret" and these rights."""
    reply = server.command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rules)
    assert reply.startswith(b"+OK"), reply


@pytest.mark.parametrize(
    ("form", "delivery"), [("unix", AT_MOST_ONCE), ("tcp", "at-least-once")], ids=["unix", "stored"]
)
def test_user_with_few_rights(guarded: Valkey, form: str, delivery: str):
    """user:password@ with the rights that the README names, and nothing is refused."""
    make_user(guarded, *documented_rights())
    url = {
        "tcp": f"redis://app:secret@127.0.0.1:{guarded.port}",
        "unix": f"unix://app:secret@{guarded.socket}",
    }[form]
    run(works(url, "pbus:shop", delivery=delivery))

    with contextlib.closing(redis.Redis(port=guarded.port, decode_responses=True)) as client:
        refused = {entry["object"] for entry in client.acl_log()}
    assert refused <= {"client|setinfo"}  # redis-py introduces itself and takes no offence


def test_user_of_a_database(guarded: Valkey):
    """On a database with a number the README's rule needs two rights more."""
    make_user(guarded, *documented_rights(), "&{pbus:shop}:2:[ds]:*", "+select")

    run(works(f"redis://app:secret@127.0.0.1:{guarded.port}/2", "pbus:shop"))


@pytest.mark.parametrize(
    "command",
    [
        "SCAN 0", "RANDOMKEY", "KEYS *", "DBSIZE", "FUNCTION LIST", "FUNCTION LOAD x", "SCRIPT FLUSH",
        "PUBSUB CHANNELS", "SELECT 1", "FLUSHALL", "CONFIG GET *", "ACL LIST", "CLIENT LIST", "INFO",
        "MONITOR", "SWAPDB 0 1", "SHUTDOWN", "EVAL return(redis.call('GET','x')) 0",
        "GET x", "SET {pbus:shop2}:version 1", "GET {pbus:shop2}:version", "HGETALL pbus:shop:workers",
        "HSET {pbus:sho}:workers a b", "XADD {pbus:shop}x:queue * a b",
        "PUBLISH {pbus:shop2}:d:w x", "PUBLISH pbus:shop:d:w x", "PUBLISH other x",
        "SUBSCRIBE {pbus:shop2}:d:w", "SUBSCRIBE pbus:shop", "PSUBSCRIBE *", "PSUBSCRIBE {pbus:*",
        "PSUBSCRIBE {pbus:shop}:[dsc]:*",
    ],
)  # fmt: skip
def test_user_may_no_more(shop_only: Valkey, command: str):
    """Neither other channels, however alike their names, nor anything of the server itself."""
    with (
        contextlib.closing(
            redis.Redis(port=shop_only.port, username="app", password="secret")
        ) as app,
        pytest.raises(redis.exceptions.ResponseError, match=r"(?i)no permissions"),
    ):
        app.execute_command(*command.split(" "))


@pytest.fixture(scope="module")
def shop_only() -> Iterator[Valkey]:
    """A server with a user of one channel."""
    with Valkey(tcp=True) as server:
        make_user(server, *documented_rights())
        yield server


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("+ping", "no permissions"),
        (">other", "invalid username-password"),
    ],
)
def test_user_without_rights_refused(guarded: Valkey, rule: str, problem: str):
    """Who may not, learns so at the start, in the server's words."""
    make_user(guarded, *documented_rights(), "-@all", "+ping")
    password = "secret" if rule == "+ping" else "wrong"
    bus = connect(f"redis://app:{password}@127.0.0.1:{guarded.port}", channel="pbus:shop")

    async def main() -> None:
        with pytest.raises(BusUnavailableError, match=f"(?i){problem}") as caught:
            await bus.start(timeout=3)
        assert password not in str(caught.value)

    run(main())


# Cluster


@pytest.fixture(scope="module")
def single() -> Iterator[ValkeyCluster]:
    """A cluster of one node."""
    with ValkeyCluster(1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    """A cluster of three nodes."""
    with ValkeyCluster(3) as cluster:
        yield cluster


def test_cluster_of_one(single: ValkeyCluster, channel: str):
    """redis+cluster://host:port."""
    run(works(single.url(), channel))


@pytest.mark.parametrize(
    ("owner", "delivery"), [(0, AT_MOST_ONCE), (1, AT_MOST_ONCE), (2, "at-least-once")]
)
def test_cluster_node_of_channel(cluster: ValkeyCluster, owner: int, delivery: str):
    """Whatever node two processes know, they meet on the one that has the channel."""
    channel = channel_on(cluster, owner)
    run(works(cluster.url(0), channel, cluster.url(1), delivery))


def test_plain_url_of_other_node_refused(cluster: ValkeyCluster):
    """Without +cluster, a node that does not have the channel's keys is an error that says so."""
    url = cluster.nodes[0].tcp_url

    async def main() -> None:
        async with connect(url, channel=channel_on(cluster, 1)) as bus:
            with pytest.raises(BusUnavailableError, match=r"redis\+cluster://"):
                await bus.leases.leases()

    run(main())


def test_slot_moves_while_in_use(cluster: ValkeyCluster):
    """When the channel's slot migrates all processes follow, leases and messages go on."""
    channel = channel_on(cluster, 2)

    async def main() -> None:
        here, there = (
            connect(cluster.url(0), channel=channel),
            connect(cluster.url(1), channel=channel),
        )
        listener = Listener("w")
        await there.subscribe(listener)
        async with here, there, shop(cluster.url(2), channel):
            await here.send(KindlyNote(source="a", target="w", content=b"before"))
            assert [b"before"] == await payloads(listener, 1)
            await asyncio.to_thread(cluster.migrate, f"{{{channel}}}:x", 2, 0)
            try:
                async with asyncio.timeout(20):  # a slow migration outlasts a lease
                    while ["shop"] != [lease.name for lease in await here.leases.leases()]:
                        await asyncio.sleep(0.05)
                await here.send(KindlyNote(source="a", target="w", content=b"after"))
                assert [b"before", b"after"] == await payloads(listener, 2)
                await shop_answers_again(cluster.url(1), channel)
            finally:
                await asyncio.to_thread(cluster.migrate, f"{{{channel}}}:x", 0, 2)

    run(main(), timeout=50)


def test_seed_need_not_live(channel: str):
    """Once in, a process finds the cluster by other nodes than the one it was given."""
    with ValkeyCluster(3) as cluster:
        channel = channel_on(cluster, 1)

        async def main() -> None:
            bus = connect(cluster.url(0), channel=channel)
            listener = Listener("w")
            await bus.subscribe(listener)
            async with bus:
                cluster.nodes[0].kill()
                for kind in ("pubsub", "normal"):
                    cluster.nodes[1].command("CLIENT", "KILL", "TYPE", kind)
                await bus.send(KindlyNote(source="a", target="w", content=b"still here"))

                assert [b"still here"] == await payloads(listener, 1)

        run(main())


def test_no_cluster_explained(valkey: Valkey, channel: str):
    """A server that is no cluster is told apart from one that is away."""
    bus = connect(valkey.tcp_url.replace("redis://", "redis+cluster://"), channel=channel)

    async def main() -> None:
        with pytest.raises(BusUnavailableError, match="cluster support disabled"):
            await bus.start(timeout=2)

    run(main())


def channel_on(cluster: ValkeyCluster, owner: int) -> str:
    """A channel whose keys are on this node."""
    names = (f"pbus:c{number}" for number in range(1000))
    return next(name for name in names if cluster.owner(f"{{{name}}}:x") == owner)


async def payloads(listener: Listener, count: int) -> list[bytes]:
    """What was in the payloads, once so many have come."""

    def found() -> list[bytes]:
        return [one.content for one in listener.messages if isinstance(one, KindlyNote)]

    await until(lambda: len(found()) >= count)
    return found()


def test_paths_are_shown(tmp_path: Path):
    """Nothing of a certificate's path is taken for a secret."""
    bus = connect(f"rediss://localhost:1?ssl_ca_certs={tmp_path}/ca.pem")

    assert str(tmp_path) in bus.url
