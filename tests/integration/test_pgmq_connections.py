"""What a PGMQ bus does when connections and servers fail, or do not let it in."""

import asyncio
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from pgmq.async_queue import PGMQueue

from pbus import PgmqBus
from pbus.bus import connect
from pbus.bus.pgmq.server import endpoint
from pbus.bus.pgmq.server.address import read_url
from pbus.errors import (
    BackendMissingError,
    BrokerGrantError,
    BrokerLoginError,
    BrokerRefusedError,
    BrokerVersionError,
    BusError,
    BusUnavailableError,
    PgmqMissingError,
)
from pbus.messages import BusDataMessage, BusSystemMessage
from pbus.settings import DeliveryOptions
from support.listeners import Listener
from support.postgres import query
from support.tls import Authority, PostgresDoor
from support.waiting import PATIENCE_S, run, until

pytestmark = pytest.mark.pgmq

ONCE, KEPT = "at-most-once", "at-least-once"
OURS = "FROM pg_stat_activity WHERE application_name = 'pbus' AND datname = current_database()"

TAKERS = "FROM pg_proc p WHERE p.proname LIKE 'fetch\\_%'"


class Stitch(BusDataMessage):
    """A numbered message."""

    number: int


class Whistle(BusSystemMessage):
    """Overtakes; never stored."""

    number: int


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    """Signs certificates."""
    return Authority(tmp_path_factory.mktemp("tls"))


def stitches(listener) -> list[int]:
    """The numbers that a listener heard."""
    return [message.number for message in listener.messages]


def test_two_connections_serve_all(database, channel):
    """Messages, queues, leases and a follower of one process share two connections."""

    async def main():
        listener = Listener("w")
        async with connect(database, channel=channel) as bus:
            await bus.subscribe(listener)
            async with bus.tap() as tap:
                await asyncio.gather(
                    *(bus.send(Stitch(source="a", target="w", number=n)) for n in range(50)),
                    *(bus.send(Whistle(source="a", number=n)) for n in range(50)),
                    *(bus.leases.leases() for _ in range(10)),
                    *(bus.queues.stats() for _ in range(10)),
                )
                await listener.heard(100)
                await anext(aiter(tap))
                rows = await query(database, f"SELECT count(*) {OURS}")
                assert 2 == rows[0][0]
        async with asyncio.timeout(PATIENCE_S):  # the server notices a little later
            while (await query(database, f"SELECT count(*) {OURS}"))[0][0]:
                await asyncio.sleep(0.02)

    run(main())


@pytest.mark.parametrize("delivery", [ONCE, KEPT])
def test_terminated_connections_come_back(database, channel, delivery):
    """After the server ended every session, all goes on; what is kept, or not sent yet, arrives."""

    async def main():
        here, there = (connect(database, channel=channel, delivery=delivery) for _ in range(2))
        listener = Listener("w")
        async with here, there:
            await there.subscribe(listener)
            for round_ in range(3):
                await query(database, f"SELECT pg_terminate_backend(pid) {OURS}")
                for kind in (Stitch, Whistle):
                    await here.send(kind(source="a", target="w", number=round_))
                expected = [number for number in range(round_ + 1) for _ in range(2)]
                await until(lambda whole=expected: sorted(stitches(listener)) == whole)
            assert 0 == here.counters.undelivered + there.counters.lost

    run(main())


@pytest.mark.parametrize("delivery", [ONCE, KEPT])
def test_killed_server_comes_back(own_postgres, channel, delivery):
    """After kill -9 of the server what was stored is there, and both lanes work again."""
    url = own_postgres.create_database()

    async def main():
        delivery_options = DeliveryOptions(declared=frozenset({"w"}))
        options = {"channel": channel, "delivery": delivery, "delivery_options": delivery_options}
        here, there = connect(url, **options), connect(url, **options)
        listener = Listener("w")
        async with here, there:
            await there.subscribe(listener)
            await here.send(Stitch(source="a", target="w", number=0))
            await listener.heard(1)
            if delivery == KEPT:
                await there.unsubscribe(listener)
                await here.send(Stitch(source="a", target="w", number=1))
            await asyncio.to_thread(own_postgres.kill)
            await asyncio.to_thread(own_postgres.start)
            await until(lambda: here.is_connected and there.is_connected)
            if delivery == KEPT:
                await there.subscribe(listener)
            await here.send(Stitch(source="a", target="w", number=2))
            await here.send(Whistle(source="a", target="w", number=3))
            expected = [0, 1, 2, 3] if delivery == KEPT else [0, 2, 3]
            await until(lambda: sorted(stitches(listener)) == expected)

    run(main())


def test_start_waits_for_server(own_postgres, channel):
    """A bus started before its server is up waits for it, and says why when it gives up."""
    url = own_postgres.create_database()

    async def main():
        await asyncio.to_thread(own_postgres.kill)
        with pytest.raises(BusUnavailableError, match="cannot use the message broker"):
            await connect(url, channel=channel).start(timeout=0.3)
        bus = connect(url, channel=channel)
        starting = asyncio.create_task(bus.start(timeout=PATIENCE_S))
        await asyncio.to_thread(own_postgres.start)
        await starting
        await bus.stop()

    run(main())


@pytest.mark.parametrize("form", ["dsn", "pool", "PGMQueue", "PGMQueue with a pool"])
def test_every_form_connects(shared_database, channel, form):
    """A DSN, a pool, and the pgmq client with its settings or its pool lead to the same bus."""

    async def main():
        folder = (await query(shared_database, "SHOW unix_socket_directories"))[0][0]
        user, name = (await query(shared_database, "SELECT current_user, current_database()"))[0]
        where = {"host": folder, "port": "5432", "database": name, "username": user}
        pool = await asyncpg.create_pool(shared_database, min_size=0, max_size=3)
        given = {
            "dsn": lambda: {"dsn": shared_database},
            "pool": lambda: {"pool": pool},
            "PGMQueue": lambda: {"pgmq": PGMQueue(**where, password="", init_extension=False)},
            "PGMQueue with a pool": lambda: {"pgmq": PGMQueue(pool=pool, init_extension=False)},
        }[form]()
        listener = Listener("w")
        async with PgmqBus(channel=channel, **given) as bus:
            await bus.subscribe(listener)
            await bus.send(Stitch(source="a", target="w", number=1))
            await listener.heard(1)
        assert 1 == await pool.fetchval("SELECT 1")  # it stays the user's
        await pool.close()

    run(main())


def test_small_pool_is_refused(shared_database, channel):
    """A pool of one connection is too small: said at once, not by a timeout."""

    async def main():
        pool = await asyncpg.create_pool(shared_database, min_size=0, max_size=1)
        with pytest.raises(BrokerRefusedError, match="max_size"):
            await PgmqBus(pool=pool, channel=channel).start()
        await pool.close()

    run(main())


def test_nothing_given_is_an_error(channel):
    """A bus without a database, or with two, says so."""
    with pytest.raises(BusError, match="one of"):
        PgmqBus(channel=channel)
    with pytest.raises(BusError, match="one of"):
        PgmqBus(dsn="postgresql://a", pool=object(), channel=channel)


async def refusal(url, channel, kind):
    """How a start is refused; the password must not be in it."""
    with pytest.raises(kind) as caught:
        await connect(url, channel=channel).start()
    assert "geheim" not in str(caught.value) + caught.value.url + caught.value.reason
    return str(caught.value)


@pytest.mark.parametrize("part", ["user", "database"])
def test_refused_login_is_explained(database, channel, part):
    """An unknown user or database is refused at once, with what to check."""
    parts = urlsplit(database)
    user, path = parts.username, parts.path
    user, path = ("nobody", path) if part == "user" else (user, "/nowhere")
    url = parts._replace(netloc=f"{user}:geheim@", path=path).geturl()

    async def main():
        assert "pg_hba" in await refusal(url, channel, BrokerLoginError)

    run(main())


def test_missing_grant_is_explained(database, channel, postgres):
    """A role that may not make what pbus needs is told what to grant."""
    role = f"poor_{channel[5:20]}"
    postgres.execute(f"CREATE ROLE {role}")
    url = f"{database}&role={role}"

    async def main():
        assert "GRANT CREATE ON DATABASE" in await refusal(url, channel, BrokerGrantError)

    run(main())


def test_old_server_is_refused(database, channel, monkeypatch):
    """A server older than pbus needs is refused with both versions."""
    monkeypatch.setattr(endpoint, "OLDEST_SERVER", 99)

    async def main():
        assert "use Postgres 99" in await refusal(database, channel, BrokerVersionError)

    run(main())


def test_old_pgmq_is_refused(database, channel):
    """A PGMQ without what pbus uses is refused with what to run."""

    async def main():
        await query(database, "DROP FUNCTION pgmq.set_vt(text, bigint[], timestamptz)")
        assert "ALTER EXTENSION pgmq UPDATE" in await refusal(database, channel, PgmqMissingError)

    run(main())


def test_missing_pgmq_package_is_named(postgres, channel, monkeypatch):
    """Without PGMQ in the server and without a package that has it (pgmq 1.0 has none), it is named."""
    name = f"plain_{channel[5:20]}"
    postgres.execute(f"CREATE DATABASE {name}")
    monkeypatch.setitem(sys.modules, "pgmq.install", None)

    async def main():
        with pytest.raises(BackendMissingError, match=r"'pgmq\.install'.*pip install 'pgmq>=1\.1'"):
            await connect(postgres.url(name), channel=channel).start()

    run(main())


def test_missing_driver_is_named():
    """Without asyncpg, connect() names it; pbus itself loads neither driver."""
    code = """if True:
        import sys, pbus
        assert not {"asyncpg", "pgmq"} & set(sys.modules)
        sys.modules["asyncpg"] = None
        try:
            pbus.connect("postgresql://u:geheim@h/d")
        except pbus.BackendMissingError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'asyncpg'" in done.stdout, done.stderr


def test_other_version_rebuilds_functions(database, channel):
    """Mailboxes that another version of pbus made are taken from by the functions of this one."""

    async def main():
        listener = Listener("w")
        async with connect(database, channel=channel) as bus:
            await bus.queues.open("w", durable=True)
            await bus.send(Stitch(source="a", target="w", number=1))
        rows = await query(database, f"SELECT p.oid::regprocedure::text AS it {TAKERS}")
        for row in rows:
            await query(database, f"DROP FUNCTION {row['it']}")
        await query(database, "UPDATE pbus.meta SET stamp = 'other'")
        async with connect(database, channel=channel) as bus:
            await bus.subscribe(listener)
            await listener.heard(1)
        assert (1, [1]) == (len(rows), stitches(listener))

    run(main())


def test_purged_queue_leaves_no_functions(database, channel):
    """A queue that is removed takes its queues' functions along."""

    async def main():
        async with connect(database, channel=channel) as bus:
            await bus.queues.open("w", durable=True)
            await bus.queues.purge("w", remove=True)
        assert 0 == len(await query(database, f"SELECT p.proname {TAKERS}"))

    run(main())


def test_unreadable_url_hides_password(channel):
    """A URL that cannot be read is refused without a word of its password."""

    async def main():
        for secret in ("x/geheim@h", "geheim@h:port", "geheim#1@h"):
            url = f"postgresql://u:{secret}/d"
            await refusal(url, channel, BusUnavailableError)

    run(main())


@pytest.mark.parametrize(
    ("issued", "mode", "problem"),
    [
        (("DNS:localhost", 1), "verify-full", None),
        (("DNS:elsewhere.example", 1), "verify-full", "localhost"),
        (("DNS:elsewhere.example", 1), "verify-ca", None),
        (("DNS:localhost", -1), "verify-full", "expired"),
        (("DNS:localhost", -1), "verify-ca", "expired"),
    ],
)
def test_tls_certificate_is_checked(issued, mode, problem, shared_database, authority):
    """The certificate must be the host's own (verify-full) and not expired."""
    certificate = authority.issue("other", *issued)
    url = urlsplit(shared_database)
    socket = Path(parse_qs(url.query)["host"][0]) / ".s.PGSQL.5432"

    async def main():
        async with PostgresDoor(socket, authority, has_tls=True, certificate=certificate) as door:
            query = f"sslmode={mode}&sslrootcert={authority.path}"
            address = read_url(f"postgresql://pbus@localhost:{door.port}{url.path}?{query}")
            if problem is None:
                await (await address.connect()).close()
                return
            with pytest.raises(OSError, match=problem):
                await address.connect()

    run(main())


@pytest.mark.parametrize(
    ("mode", "has_tls", "expected"),
    [
        ("", True, True),
        ("", False, False),
        ("sslmode=disable", True, False),
        ("sslmode=require", False, None),
        ("sslmode=verify-full&sslrootcert={ca}", True, True),
        ("sslmode=verify-full", True, None),
    ],
)
def test_tls_follows_the_url(mode, has_tls, expected, shared_database, authority, monkeypatch):
    """TLS where the server has it, or as sslmode says; the environment has no say."""
    monkeypatch.setenv("PGSSLMODE", "verify-ca")
    monkeypatch.setenv("PGSSLROOTCERT", "/nowhere")

    async def main():
        folder = Path(parse_qs(urlsplit(shared_database).query)["host"][0])
        door = PostgresDoor(folder / ".s.PGSQL.5432", authority, has_tls=has_tls)
        async with door:
            query = mode.format(ca=authority.path)
            path = urlsplit(shared_database).path
            address = read_url(f"postgresql://pbus@127.0.0.1:{door.port}{path}?{query}")
            if expected is None:
                with pytest.raises(OSError, match=r"rejected|root\.crt"):
                    await address.connect()
                return
            connection = await address.connect()
            transport = connection._transport
            assert expected == (transport.get_extra_info("ssl_object") is not None)
            await connection.close()

    run(main())
