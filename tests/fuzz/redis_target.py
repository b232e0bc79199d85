"""Strange bytes on all channels and in all keys of a project on Redis."""

import contextlib
import re
import time
from typing import Any

import redis

from fuzz.payloads import Payloads
from fuzz.project import Fuzzed, pace
from fuzz.sealing import Sample, Sealer

_LISTED_EVERY = 50  # batches
_BATCH = 200
_LAST = "18446744073709551615-18446744073709551615"  # no entry can follow
_LISTEN_S = 2.5  # longer than a beat
_BEHIND_BYTES = 1_000_000


class RedisTarget:
    """Throws payloads at a project.

    Args:
        fuzzed: The project.
        seed: Of all choices.
    """

    def __init__(self, fuzzed: Fuzzed, seed: int) -> None:
        self._broker = fuzzed.place.broker()
        record = fuzzed.place.record()
        self._pattern = "{" + record["channel"] + "}*"
        self._sealer = Sealer(fuzzed.place.seal(), list(fuzzed.place.rows()))
        self._payloads = Payloads(seed, self._sealer, self._record(fuzzed))
        self._mutator = self._payloads.mutator
        self._random = self._mutator.random
        self._channels: list[bytes] = []
        self._keys: list[tuple[bytes, bytes]] = []
        self._parts: dict[bytes, list[bytes]] = {}  # fields and members of keys
        self._batches = 0
        self.counts = {"published": 0, "written": 0, "refused": 0}

    def throw(self) -> int:
        """One batch; returns how many payloads."""
        if self._batches % _LISTED_EVERY == 0:
            self._look()
        self._batches += 1
        with self._broker.pipeline(transaction=False) as pipe:
            for _ in range(_BATCH):
                self._write(pipe) if self._keys and self._random.random() < 0.25 else self._publish(
                    pipe
                )
            replies = pipe.execute(raise_on_error=False)
        self.counts["refused"] += sum(isinstance(reply, redis.ResponseError) for reply in replies)
        self.counts["sealed"] = self._payloads.sealed
        pace(self._is_behind)
        return _BATCH

    def close(self) -> None:
        """Disconnect."""
        self._broker.close()

    def _record(self, fuzzed: Fuzzed) -> list[Sample]:
        """Real traffic, and what the keys hold after it."""
        samples = []
        with self._broker.pubsub() as listener:
            listener.psubscribe("*")
            fuzzed.talk()
            until = time.monotonic() + _LISTEN_S
            while (left := until - time.monotonic()) > 0:
                message = listener.get_message(timeout=left)
                if message is not None and message["type"] == "pmessage":
                    samples.append(self._sealer.opened(message["data"]))
        for key in self._broker.scan_iter(self._pattern):
            samples += [self._sealer.opened(value, field) for field, value in self._values(key)]
        return [*samples, *self._sealer.stored(samples)]

    def _values(self, key: bytes) -> list[tuple[bytes, bytes]]:
        kind = self._broker.type(key)
        if kind == b"hash":
            return list(self._broker.hgetall(key).items())
        if kind == b"stream":
            rows = self._broker.xrange(key, count=50)
            return [(key.rpartition(b":")[2], value) for _, row in rows for value in row.values()]
        if kind == b"zset":
            return [(b"", member) for member in self._broker.zrange(key, 0, -1)]
        return [(b"", self._broker.get(key) or b"")] if kind == b"string" else []

    def _look(self) -> None:
        self._channels = self._broker.pubsub_channels(self._pattern.replace("*", "") + "*")
        keys = list(self._broker.scan_iter(self._pattern, count=1000))
        self._keys = [(key, self._broker.type(key)) for key in keys][:300]
        self._parts = {key: self._parts_of(key, kind) for key, kind in self._keys}

    def _parts_of(self, key: bytes, kind: bytes) -> list[bytes]:
        with contextlib.suppress(redis.ResponseError):  # of another type meanwhile
            if kind == b"hash":
                return self._broker.hkeys(key)
            if kind == b"zset":
                return self._broker.zrange(key, 0, 50)
        return []

    def _is_behind(self) -> bool:
        clients: list[dict[str, Any]] = self._broker.client_list()
        return sum(int(one["omem"]) for one in clients) > _BEHIND_BYTES

    def _publish(self, pipe: Any) -> None:
        self.counts["published"] += 1
        pipe.publish(self._random.choice(self._channels), self._payloads.one())

    def _write(self, pipe: Any) -> None:
        self.counts["written"] += 1
        key, kind = self._random.choice(self._keys)
        what = self._random.random()
        if what < 0.01:
            key, kind = (
                self._mutator.mutate(key)[:200],
                self._random.choice((b"hash", b"zset", b"stream")),
            )
            if not key.startswith(self._pattern[:-1].encode()):
                key = self._pattern[:-1].encode() + b":" + key
        elif what < 0.02:
            pipe.delete(key)
            kind = self._random.choice((b"hash", b"zset", b"stream", b"string", b"set"))
        with contextlib.suppress(redis.DataError):
            getattr(self, f"_write_{kind.decode()}")(pipe, key)

    def _write_hash(self, pipe: Any, key: bytes) -> None:
        field = self._random.choice(self._parts.get(key) or [b"n"])
        if self._random.random() < 0.2:
            field = self._mutator.mutate(field)[:300]
        value = self._mutator.number() if self._random.random() < 0.3 else self._payloads.one(field)
        pipe.hset(key, field, value)

    def _write_zset(self, pipe: Any, key: bytes) -> None:
        member = self._random.choice(self._parts.get(key) or [b"clerk"])
        if self._random.random() < 0.7:
            member = self._mutator.mutate(member)[:300]
        pipe.execute_command("ZADD", key, self._mutator.number(), member)

    def _write_set(self, pipe: Any, key: bytes) -> None:
        pipe.sadd(key, self._payloads.one()[:300])

    def _write_string(self, pipe: Any, key: bytes) -> None:
        pipe.set(key, self._random.choice((self._mutator.number(), self._payloads.one())))

    def _write_stream(self, pipe: Any, key: bytes) -> None:
        queue = key.rpartition(b":")[2]
        names = [b"i", b"b", b"m", b"h", b"q", b"w", b"", b"\xff"]
        fields = {name: self._payloads.one(queue) for name in self._random.sample(names, 3)}
        if self._random.random() < 0.6:
            fields = {
                self._random.choice((b"i", b"h")): self._payloads.one()[:200],
                b"b": self._payloads.one(queue),
            }
            if self._random.random() < 0.3:
                fields[b"m"] = self._mutator.mutate(b"1 0 0 1700000000000")
        pipe.xadd(key, fields, id=_LAST if self._random.random() < 0.002 else "*")

    def _write_none(self, pipe: Any, key: bytes) -> None:
        pipe.set(key, re.sub(rb"\W", b"", key)[:5])
