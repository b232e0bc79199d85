"""All statements of the PGMQ backend: what bounds each, and that the server ends it before its caller."""

import ast
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from pbus.bus.pgmq.server import connection, installation, session
from pbus.bus.pgmq.server.connection import HealingConnection
from pbus.bus.pgmq.server.endpoint import Endpoint
from support.waiting import run

ROOT = Path(str(files("pbus.bus.pgmq")))
SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE)\b")
OURS = re.compile(r"\bpbus\.([a-z_]+)")

# What a process says to the server, and how much work one statement is at most.
BOUNDS = {
    "activation": "one row",
    "activation_set": "one row",
    "channel_erase": "all of a channel; its deadline is a minute on both sides",
    "dead_letter": "LIMIT",
    "lease_bodies": "a lease a worker",
    "lease_claim": "one row",
    "lease_evict": "one row",
    "lease_extend": "a row an incarnation of this process",
    "lease_release": "a row an incarnation of this process",
    "lease_renew": "a row a worker of this process",
    "meta": "one row",
    "queue": "a row a queue; by LIMIT where dead letters are shown",
    "queue_build_fetch": "two functions a queue; has minutes on both sides",
    "queue_build_put": "two functions a queue; has minutes on both sides",
    "queue_dead_letter_foreign": "what one fetch returned",
    "queue_delete_settled": "what one fetch returned",
    "queue_drop_dead": "SETTLED_AT_ONCE keys",
    "queue_fetch": "4 MiB and the prefetch limit",
    "queue_mark_started": "what one process has fetched",
    "queue_open": "one queue",
    "queue_purge_at_once": "5,000 entries or 16 MiB in flight, whatever waits",
    "queue_purge_some": "PURGED_AT_ONCE rows",
    "queue_purge_whole": "one queue; its tables are dropped, its rows are not read",
    "queue_put": "a batch of the producer",
    "queue_put_one": "one message",
    "queue_read_message": "one message",
    "queue_remove_empty": "one queue",
    "queue_renew": "the queues of one process, and what it has fetched",
    "queue_repair": "all queues; has minutes on both sides",
    "queue_requeue_dead": "SETTLED_AT_ONCE keys",
    "queue_requeue_held_by": "what the dead had fetched",
    "queue_settle": "SETTLED_AT_ONCE settlements",
    "queue_stats": "a queue's first row, its retries, and what is in flight",
    "queue_subscribe_push": "one queue",
    "queue_tidy": "what was handled in 30 s",
    "record_drop": "one row",
    "record_put": "one row",
    "records": "a row a recorder",
    "stats_put": "one row",
    "stats_read": "a row a process",
    "stream_join": "one process",
    "stream_leave": "one process",
    "stream_put": "a batch of the writer",
    "stream_read": "so many rows",
    "stream_tidy": "what has expired",
}
# Where statements are run without HealingConnection, which says the deadline of each to the server.
WITH_DEADLINES_OF_THEIR_OWN = {"server", "erase.py", "inspect_server.py"}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """The modules of the backend, by their first folder or their name."""
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).parts[0], ast.parse(path.read_text(encoding="utf-8"))


def said() -> set[str]:
    """Tables and functions that statements name."""
    found: set[str] = set()
    for _, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(OURS.findall(node.value) if SQL.match(node.value) else ())
    return found


def test_every_statement_is_bounded() -> None:
    """A new one gets its line above, when it is known what bounds it."""
    assert set(BOUNDS) == said()


def test_every_statement_has_a_deadline() -> None:
    """None is run beside the connection that has the server end it."""
    beside = {
        place
        for place, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute)
        and node.attr in {"execute", "executemany", "fetchrow", "fetchval", "cursor", "prepare"}
        and place not in WITH_DEADLINES_OF_THEIR_OWN
    }
    assert set() == beside


def test_what_processes_call_has_the_rights_for_it() -> None:
    """Each function is run as its owner, so a role without rights on tables may use it."""
    rights = (ROOT / "sql" / "rights.sql").read_text(encoding="utf-8")
    listed = set(re.findall(r"[a-z_]+", rights[rights.index("'{") : rights.index("}'")]))
    functions = {
        name
        for path in (ROOT / "sql").glob("*.sql")
        for name in re.findall(r"CREATE OR REPLACE FUNCTION pbus\.([a-z_]+)", path.read_text())
    }
    assert listed <= functions
    built = {"queue_build_fetch", "queue_build_put"}  # by the owner, when it installs
    assert said() & functions - built <= listed


@pytest.mark.pgmq
def test_server_ends_a_statement_before_its_caller(database: str) -> None:
    """Whatever a statement carries; a small one after a large one has the usual deadline again."""
    shown = "SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'statement_timeout'"
    sizes = [0, 1, connection._LARGE, connection._LARGE + 1, 512 * 1024 * 1024, 0]

    async def main() -> list[float]:
        link = HealingConnection(Endpoint(dsn=database), "test")
        try:
            return [(await link.call(shown, size=size))[0][0] / 1000 for size in sizes]
        finally:
            await link.close()

    found = run(main())
    for size, seconds in zip(sizes, found, strict=True):
        carried_s = size / connection.BYTES_PER_S
        assert session.STATEMENT_S <= seconds < connection.CALL_TIMEOUT_S + carried_s
        assert seconds >= carried_s
    assert session.STATEMENT_S == found[0] == found[-1]
    assert connection.CALL_TIMEOUT_S < installation.BUILD_TIMEOUT_S
