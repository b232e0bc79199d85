"""Strange bytes in the queues and tables of a project on Postgres, in its notifications and functions."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

import asyncpg

from fuzz.payloads import Payloads
from fuzz.project import Fuzzed, pace
from fuzz.sealing import Sample, Sealer

_BATCH = 200
_LISTED_EVERY = 10  # batches
_CONNECTIONS = 8
_LOOK_S = 0.02
_BEHIND = 500  # rows that wait
# What processes call, without what takes or removes: that needs no strange bytes.
_FUNCTIONS = [
    "activation_set", "lease_claim", "lease_renew", "queue_open", "queue_put", "queue_put_one", "queue_dead_letter_foreign",
    "queue_requeue_dead", "queue_mark_started", "queue_renew", "queue_subscribe_push", "record_put", "stream_join", "stream_put",
]  # fmt: skip
_SIGNATURES = """SELECT p.proname, array(SELECT format_type(t, NULL) FROM unnest(p.proargtypes) t) AS types
  FROM pg_proc p WHERE p.pronamespace = 'pbus'::regnamespace AND p.proname = ANY($1)"""
_STORED = """SELECT body::text FROM pbus.lease UNION ALL SELECT body FROM pbus.activation
  UNION ALL SELECT convert_from(body, 'UTF8') FROM pbus.record
  UNION ALL SELECT payload FROM (SELECT unnest(array['*', 'd', 's'])) x(payload)"""
_NEW_ROWS = {
    "lease": """INSERT INTO pbus.lease SELECT channel, $1, incarnation, $2, $3,
      clock_timestamp() + interval '30 s' FROM pbus.lease LIMIT 1
      ON CONFLICT (channel, name) DO UPDATE SET head = excluded.head, body = excluded.body""",
    "activation": """INSERT INTO pbus.activation SELECT channel, $1, $2 || $3 FROM pbus.lease LIMIT 1
      ON CONFLICT (channel, name) DO UPDATE SET body = excluded.body""",
    "dead": """INSERT INTO pbus.dead_letter (queue_id, lane, message, reason, attempt, crashes, dead_since)
      SELECT id, 'd', to_jsonb($1::text || $3), $2, -1, 2147483647, clock_timestamp() + interval '9 years'
      FROM pbus.queue ORDER BY random() LIMIT 1""",
}  # fmt: skip


class _Shot(NamedTuple):
    """One statement with strange bytes.

    Attributes:
        kind: Where it is counted.
    """

    kind: str
    sql: str
    arguments: tuple[Any, ...]


class PgmqTarget:
    """Throws payloads at a project.

    Args:
        fuzzed: The project.
        seed: Of all choices.
    """

    def __init__(self, fuzzed: Fuzzed, seed: int) -> None:
        record = fuzzed.place.record()
        self._channel: str = record["channel"]
        self._runner = asyncio.Runner()
        # A commit that is not waited for disturbs no less.
        fast = {"synchronous_commit": "off"}
        self._connections: list[asyncpg.Connection] = [
            self._run(asyncpg.connect(record["url"], server_settings=fast))
            for _ in range(_CONNECTIONS)
        ]
        self._base = self._connections[0]
        self._sealer = Sealer(fuzzed.place.seal(), list(fuzzed.place.rows()))
        self._payloads = Payloads(seed, self._sealer, self._record(fuzzed))
        self._mutator = self._payloads.mutator
        self._random = self._mutator.random
        self._signatures = [
            (row["proname"], row["types"]) for row in self._fetch(_SIGNATURES, _FUNCTIONS)
        ]
        self._batches = 0
        self.counts = {
            "wire": 0,
            "queues": 0,
            "tables": 0,
            "notified": 0,
            "calls": 0,
            "refused": 0,
        }
        self._ways: list[Callable[[], _Shot]] = [
            self._wire, self._wire, self._wire, self._queue, self._queue, self._table, self._notify, self._call,
        ]  # fmt: skip

    def throw(self) -> int:
        """One batch; returns how many payloads."""
        if self._batches % _LISTED_EVERY == 0:
            self._look()
        self._batches += 1
        shots = [self._random.choice(self._ways)() for _ in range(_BATCH)]
        self._run(self._throw(shots))
        self.counts["sealed"] = self._payloads.sealed
        pace(self._is_behind, look_s=_LOOK_S)
        return _BATCH

    def close(self) -> None:
        """Disconnect."""
        for connection in self._connections:
            self._run(connection.close())
        self._runner.close()

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)

    def _fetch(self, sql: str, *arguments: Any) -> Any:
        return self._run(self._base.fetch(sql, *arguments))

    def _record(self, fuzzed: Fuzzed) -> list[Sample]:
        """Real traffic, as a follower of the database sees it, and what the tables hold after it."""
        self._fetch("""CREATE TABLE pbus.seen (payload bytea)""")
        self._fetch("""CREATE FUNCTION pbus.see() RETURNS trigger LANGUAGE plpgsql AS $$
          BEGIN INSERT INTO pbus.seen VALUES (NEW.payload); RETURN NULL; END $$""")
        self._fetch(
            "CREATE TRIGGER see AFTER INSERT ON pbus.stream_payload FOR EACH ROW EXECUTE FUNCTION pbus.see()"
        )
        fuzzed.talk()
        rows = [row[0] for row in self._fetch("SELECT payload FROM pbus.seen")]
        self._fetch("DROP TRIGGER see ON pbus.stream_payload")
        self._fetch("DROP FUNCTION pbus.see")
        self._fetch("DROP TABLE pbus.seen")
        rows += [row[0].encode() for row in self._fetch(_STORED)]
        samples = [self._sealer.opened(raw) for raw in rows]
        return [*samples, *self._sealer.stored(samples)]

    def _look(self) -> None:
        self._peers = [row[0] for row in self._fetch("SELECT id FROM pbus.peer")]
        self._holders = [row[0] for row in self._fetch("SELECT name FROM pbus.consumer")] or ["x"]
        self._boxes = self._fetch("SELECT id, name, base FROM pbus.queue ORDER BY name LIMIT 50")
        channels = (
            "SELECT notify_channel FROM pbus.push_consumer UNION SELECT pbus.notify_channel($1)"
        )
        self._channels = [row[0] for row in self._fetch(channels, self._channel)]

    def _is_behind(self) -> bool:
        waiting = """SELECT greatest(
          (SELECT count(*) FROM pbus.stream_payload w JOIN pbus.peer p ON p.id = w.peer WHERE NOT p.name LIKE 'fuzz%'),
          (SELECT coalesce(sum(i.stored - o.gone), 0) FROM pbus.enqueued_count i JOIN pbus.dequeued_count o USING (queue_id)))"""
        return self._fetch(waiting)[0][0] > _BEHIND

    async def _throw(self, shots: Sequence[_Shot]) -> None:
        await asyncio.gather(
            *(
                self._shoot(connection, shots[at::_CONNECTIONS])
                for at, connection in enumerate(self._connections)
            )
        )
        await self._base.execute("SELECT pg_notify(pbus.notify_channel($1), 'w ')", self._channel)

    async def _shoot(self, connection: asyncpg.Connection, shots: Sequence[_Shot]) -> None:
        for shot in shots:
            try:
                await connection.execute(shot.sql, *shot.arguments)
                self.counts[shot.kind] += 1
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OverflowError):
                self.counts["refused"] += 1

    def _text(self) -> str:
        return self._payloads.one().decode(errors="replace").replace("\0", "")

    def _wire(self) -> _Shot:
        sql = "INSERT INTO pbus.stream_payload (peer, rank, payload) VALUES ($1, $2, $3)"
        rank = self._random.choice((0, 1, 2, 2, 7))
        return _Shot("wire", sql, (self._random.choice(self._peers), rank, self._payloads.one()))

    def _queue(self) -> _Shot:
        box = self._random.choice(self._boxes)
        body = self._payloads.one(box["name"].encode()).decode(errors="replace").replace("\0", "")
        message: Any = [[self._mutator.text().replace("\0", ""), body]]
        if self._random.random() < 0.4:
            message = self._strange(message)
        headers = self._random.choice((
            '{"n": 1}',
            self._strange({"n": 1, "a": 2, "c": 0, "s": False, "t": 1}),
        ))
        queue = f"{box['base']}_{self._random.choice('ds')}"
        sql = "SELECT pgmq.send($1, $2::text::jsonb, $3::text::jsonb)"
        return _Shot("queues", sql, (queue, _json(message), _json(headers)))

    def _strange(self, value: Any) -> str:
        return (
            self._mutator.mutate(_json(value).encode()).decode(errors="replace").replace("\0", "")
        )

    def _table(self) -> _Shot:
        sql = self._random.choice(list(_NEW_ROWS.values()))
        names = ["clerk", "post.1", "x", self._mutator.text().replace("\0", "")]
        return _Shot("tables", sql, (self._random.choice(names), self._text()[:500], self._text()))

    def _notify(self) -> _Shot:
        said = self._random.choice((
            self._text(), "w " + self._text(), self._strange([1, 2, "clerk", "d", {"n": 1}, [["id", "{}"]]]),
        ))  # fmt: skip
        channel = self._random.choice(self._channels)
        return _Shot("notified", "SELECT pg_notify($1, $2)", (channel, said[:7000]))

    def _call(self) -> _Shot:
        name, types = self._random.choice(self._signatures)
        if name == "queue_open" and self._random.random() < 0.9:
            return self._notify()
        many = self._random.choice((1, 2))
        places = ", ".join(f"${at}::text::{kind}" for at, kind in enumerate(types, 1))
        values = [self._channel, *(self._argument(kind, many) for kind in types[1:])]
        if name in {"queue_requeue_dead", "lease_renew"} or types[0] != "text":
            values[0] = self._channel if types[0] == "text" else self._argument(types[0], many)
        return _Shot("calls", f"SELECT pbus.{name}({places})", tuple(values))

    def _argument(self, kind: str, many: int) -> str:
        """A value as Postgres reads it."""
        if kind.endswith("[]"):
            cells = (self._argument(kind[:-2], many) for _ in range(many))
            return (
                "{"
                + ",".join('"' + c.replace("\\", "\\\\").replace('"', '\\"') + '"' for c in cells)
                + "}"
            )
        if kind == "boolean":
            return self._random.choice(("true", "false"))
        if kind == "text":
            known = [
                "clerk",
                "post",
                "post.1",
                "*",
                "d",
                "s",
                "c",
                *self._channels,
                "fuzz1",
                "fuzz2",
            ]
            return self._random.choice((self._random.choice(known), self._text()))
        if kind == "bytea":
            return "\\x" + self._payloads.one().hex()
        if kind == "jsonb":
            return self._strange([["id", "{}"]])
        return self._random.choice((
            "1",
            "2",
            "0",
            "3",
            "10",
            "30",
            self._mutator.number().decode(),
        ))


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
