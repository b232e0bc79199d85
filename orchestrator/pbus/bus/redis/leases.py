"""Leases on Redis: one sorted set by the server's clock, one hash; each step is one script."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import BusyLoadingError, ClusterDownError

from pbus.bus.redis.keys import Keys
from pbus.bus.redis.server.endpoint import MOVING, TROUBLE, Endpoint, reason_of
from pbus.errors import BusUnavailableError
from pbus.leases import (
    BRIEF,
    LEASE_S,
    LEFT_OUT,
    MAX_LEASE_BYTES,
    MAX_LEASES,
    MAX_RECORD_BYTES,
    MAX_RECORDS,
    MAX_RECORDS_BYTES,
    Activation,
    Lease,
    Renewal,
    Since,
    claim_name,
    close_record,
    decode_activation,
    decode_leases,
    encode_activation,
    encode_lease,
    head_of,
    open_records,
    released_by,
    truly_expired,
)
from pbus.seal import NO_SEAL, Seal

logger = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 3.0
_RETRY_PAUSE_S = 0.05
_CONNECTIONS = 8
KEYS_LIVE_MS = 24 * 3600 * 1000  # a channel that is not used for a day leaves nothing behind

# A value of the hash is "incarnation|state|active|start|runner", when it was renewed, and the lease as JSON, a
# line each: scripts compare the first and never parse the last. They return the others with the age
# in place of the time: readers compare no other clock than the server's.
_VALUE_ROOM = 1024  # of a value of the hash beside the lease
_MOST_GONE = 1_000  # names without a lease whose last change is noted
_BOUNDS = (
    f"local MOST, LARGEST = {MAX_LEASES}, {MAX_LEASE_BYTES + _VALUE_ROOM}\n"
    f"local LEFT_OUT, BRIEF = '{LEFT_OUT}', '{BRIEF}'\n"
    f"local MOST_GONE = {_MOST_GONE}\n"
)
_PRELUDE = (
    _BOUNDS
    + """
if redis.replicate_commands then pcall(redis.replicate_commands) end
local leases, workers, version, changes = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- Other writers may have written anything: no value ends a script.
-- The version of each name's last change, and under names that are none: of the last change that is
-- noted, up to which they are forgotten, and when the notes began. Processes of before bump without
-- a note; then the notes begin again.
local LAST, FLOOR, EPOCH = '', '\1', '\2'
local function noted(what) return tonumber(redis.call('ZSCORE', changes, what) or '-1') end
local is_bumped = false
local function bump(name)
  local at = redis.pcall('INCR', version)
  if type(at) == 'table' then
    redis.call('SET', version, now)
    at = now
  end
  if noted(LAST) ~= at - 1 then
    redis.call('DEL', changes)
    local began = string.format('%.0f', clock[1] * 1000000 + clock[2])  -- us: notes may begin twice in a ms
    redis.call('ZADD', changes, at - 1, FLOOR, began, EPOCH)
  end
  redis.call('ZADD', changes, at, name, at, LAST)
  is_bumped = true
  if redis.call('ZCARD', changes) > 2 * redis.call('ZCARD', leases) + MOST_GONE then
    local oldest = redis.call('ZRANGE', changes, 1, 1, 'WITHSCORES')
    redis.call('ZREM', changes, oldest[1])
    redis.call('ZADD', changes, oldest[2], FLOOR)
  end
end
local function split(value)
  local at = string.find(value, '\\n', 1, true) or #value + 1
  return string.sub(value, 1, at - 1), string.sub(value, at + 1)
end
local function aged(body)
  local at = string.find(body, '\\n', 1, true)
  local renewed = at and tonumber(string.sub(body, 1, at - 1))
  return renewed and (now - renewed) .. string.sub(body, at) or body
end
local function incarnation_of(head) return string.match(head, '^[^|]*') end
local function drop(name)
  local value = redis.call('HGET', workers, name)
  redis.call('ZREM', leases, name)
  redis.call('HDEL', workers, name)
  bump(name)
  if value and #value <= LARGEST then local _, body = split(value); return aged(body) end
end
local function sweep()  -- others may have removed one of the keys
  if redis.call('HLEN', workers) == redis.call('ZCARD', leases) then return end
  for _, name in ipairs(redis.call('HKEYS', workers)) do
    if not redis.call('ZSCORE', leases, name) then drop(name) end
  end
end
local function expire()
  local gone = {}
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, MOST)) do
    local body = drop(name)
    if body then gone[#gone + 1] = body end
  end
  return gone
end
local function put(name, head, body, ttl)
  local held = redis.call('HGET', workers, name)
  if held and #held > LARGEST then  -- none of ours: its owner had been told
    drop(name)
    held = nil
  end
  if held then
    local held_head, held_body = split(held)
    if incarnation_of(held_head) ~= incarnation_of(head) then return aged(held_body) end
    if held_head ~= head then bump(name) end
  else
    bump(name)
  end
  redis.call('ZADD', leases, now + ttl, name)
  redis.call('HSET', workers, name, head .. '\\n' .. now .. '\\n' .. body)
end
local function body_of(name, is_brief)
  local value = redis.call('HGET', workers, name)
  if value and #value > LARGEST then return LEFT_OUT .. string.sub(name, 1, 100) end
  if not value then return nil end
  local head, body = split(value)
  -- Processes of before have shorter heads.
  if is_brief and string.find(head, '^[^|]*|[^|]*|[^|]*|[^|]*|') then return BRIEF .. name .. '\\n' .. head end
  return aged(body)
end
local function bodies_of(names, is_brief)  -- those that end first: invented ones may never end
  local bodies = {}
  if #names > MOST then
    names[#names] = nil
    bodies[1] = LEFT_OUT
  end
  for _, name in ipairs(names) do
    bodies[#bodies + 1] = body_of(name, is_brief)
  end
  return bodies
end
local function changed_since(known, wanted)  -- names, as a set; nil where that is not known
  if noted(LAST) ~= tonumber(redis.call('GET', version) or '0') or known < noted(FLOOR) then return nil end
  local above = '(' .. string.format('%.0f', known)
  if redis.call('ZCOUNT', changes, above, '+inf') > MOST then return nil end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', changes, above, '+inf')) do wanted[name] = true end
  wanted[LAST], wanted[FLOOR], wanted[EPOCH] = nil, nil, nil
  return wanted
end
local function belonging(from, among)
  local wanted, lengths, names = {}, {}, {}
  for i = from, #ARGV do wanted[ARGV[i]], lengths[#ARGV[i]] = true, true end
  for _, name in ipairs(among or redis.call('ZRANGE', leases, 0, -1)) do
    local value = redis.call('HGET', workers, name)
    local incarnation = value and incarnation_of((split(value))) or ''
    for length in pairs(lengths) do
      if wanted[string.sub(incarnation, 1, length)] then names[#names + 1] = name; break end
    end
  end
  return names
end
local function linger(ms)  -- keys that were made just now, and half-way through all of them
  if not is_bumped and redis.call('PTTL', leases) > ms / 2 then return end
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ms) end
end
"""
)
# A write that needs no memory, before all others: then a server that has none left lets a script pass.
_ALWAYS = "redis.call('ZREM', KEYS[1], '')\n"
_CLAIM = (
    _PRELUDE
    + _ALWAYS
    + """
local ends = redis.call('ZSCORE', leases, ARGV[1])
if ends and tonumber(ends) <= now then drop(ARGV[1]) end
return put(ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])) or false
"""
)
_EVICT = (
    _PRELUDE
    + _ALWAYS
    + """
local value = redis.call('HGET', workers, ARGV[1])
if value and string.sub(value, #value - #ARGV[2] + 1) == ARGV[2] then drop(ARGV[1]) end
return 0
"""
)
_RENEW = (
    _PRELUDE
    + _ALWAYS
    + """
local gone, refused = expire(), {}
local known, is_brief, first = tonumber(ARGV[2]), ARGV[5] == '1', 7 + tonumber(ARGV[6])
for i = first, #ARGV, 3 do
  if put(ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[1])) then refused[#refused + 1] = ARGV[i] end
end
if #ARGV >= first then linger(ARGV[3]) end
sweep()
local at, epoch = tonumber(redis.call('GET', version) or '0') or 0, string.format('%.0f', noted(EPOCH))
if #gone > 0 then known = -1 end  -- what is gone may be a copy of what is not: the reader compares
if (at == known and first == 7) or known == -2 then return {at, gone, refused, epoch} end
local wanted = {}
for i = 7, first - 1 do wanted[ARGV[i]] = true end
wanted = ARGV[4] == epoch and known >= 0 and known <= at and changed_since(known, wanted)
if not wanted then
  return {at, gone, refused, epoch, bodies_of(redis.call('ZRANGE', leases, 0, MOST), is_brief)}
end
local bodies, absent = {}, {}
for name in pairs(wanted) do
  local body = redis.call('ZSCORE', leases, name) and body_of(name, is_brief)
  if body then bodies[#bodies + 1] = body else absent[#absent + 1] = name end
end
return {at, gone, refused, epoch, bodies, absent}
"""
)
_READ = (  # drops nothing: who drops a lease has to announce it
    _PRELUDE
    + """
return bodies_of(redis.call('ZRANGEBYSCORE', leases, '(' .. now, '+inf', 'LIMIT', 0, MOST + 1))
"""
)
_KEEP = (
    _PRELUDE
    + _ALWAYS
    + """
for _, name in ipairs(belonging(2)) do
  redis.call('ZADD', leases, 'XX', now + tonumber(ARGV[1]), name)
end
return 0
"""
)
_RELEASE = (
    _PRELUDE
    + """
local released, among = {}, tonumber(ARGV[1])
local from = 2 + (among or 0)
for _, name in ipairs(belonging(from, among and {unpack(ARGV, 2, from - 1)})) do released[#released + 1] = drop(name) end
return released
"""
)
_RECORDS = (
    f"local MOST, LARGEST, ROOM = {MAX_RECORDS}, {MAX_RECORD_BYTES}, {MAX_RECORDS_BYTES}\n"
    """
if redis.replicate_commands then pcall(redis.replicate_commands) end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if ARGV[1] == 'put' then
  redis.call('ZREM', KEYS[1], '')
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2])
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[5]) end
elseif ARGV[1] == 'drop' then
  redis.call('ZREM', KEYS[1], ARGV[2])
  redis.call('HDEL', KEYS[2], ARGV[2])
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
  redis.call('ZREM', KEYS[1], key)
  redis.call('HDEL', KEYS[2], key)
end
if ARGV[1] ~= 'get' then return 0 end
local found = {}
local wanted = ARGV[2] and {ARGV[2]} or redis.call('ZRANGE', KEYS[1], 0, MOST - 1)
for _, key in ipairs(wanted) do
  local record = redis.call('HGET', KEYS[2], key)
  if record and #record <= LARGEST and #record <= ROOM then
    found[#found + 1], found[#found + 2] = key, record
    ROOM = ROOM - #record
  end
end
return found
"""
)


# Keys of a wrong type are no registry's: they were written by others, and everything stops at them.
_MEND = """
local mended = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= ARGV[i] then
    redis.call('UNLINK', key)
    mended[#mended + 1] = key
  end
end
return mended
"""
_TYPES = {
    "leases": "zset",
    "workers": "hash",
    "version": "string",
    "changes": "zset",
    "records": "zset",
    "record": "hash",
    "stats": "zset",
    "stat": "hash",
    "activations": "hash",
}


class RedisLeaseStore:
    """A LeaseStore on the server of a RedisBus; see the protocol for its methods."""

    def __init__(self, endpoint: Endpoint, names: Keys, seal: Seal = NO_SEAL) -> None:
        self._seal = seal
        self._endpoint = endpoint
        self._redis = endpoint.client(max_connections=_CONNECTIONS)
        self._turns = asyncio.Semaphore(_CONNECTIONS)  # many may start or end at once
        self._keys = [names.key(what) for what in ("leases", "workers", "version")]
        self._all_keys = [*self._keys, names.key("changes")]
        self._record_keys = [names.key(what) for what in ("records", "record")]
        self._stats_keys = [names.key(what) for what in ("stats", "stat")]
        self._activations = names.key("activations")
        self._types = {names.key(what): kind for what, kind in _TYPES.items()}
        self._scripts: dict[str, Any] = {
            source: self._redis.register_script(source)
            for source in (_CLAIM, _EVICT, _RENEW, _READ, _KEEP, _RELEASE, _RECORDS, _MEND)
        }

    async def claim(self, lease: Lease) -> Lease | None:
        """Take the name; see LeaseStore."""
        return await claim_name(
            lease, self._seal, self._endpoint.url, claim=self._claim, evict=self._evict
        )

    async def renew(self, leases: Sequence[Lease], *, version: int | Since = -1) -> Renewal:
        """Renew leases; see LeaseStore."""
        rows = [cell for lease in leases for cell in self._row(lease)]
        told = self._told_of(version)
        reply = await self._run(_RENEW, self._all_keys, [_lease_ms(), *told, *rows])
        at, expired, refused, epoch, *rest = reply
        held = _texts(refused)
        claims = [(one.name, await self.claim(one)) for one in leases if one.name in held]
        holders = {name: holder for name, holder in claims if holder is not None}
        live = decode_leases(rest[0], self._seal) if rest else None
        return Renewal(
            version=at,
            epoch=int(epoch),
            leases=live,
            absent=_texts(rest[1]) if rest[1:] else None,
            expired=truly_expired(decode_leases(expired, self._seal), live),
            refused=list(holders),
            holders=holders,
        )

    def _told_of(self, version: int | Since) -> list[Any]:
        """What a renewal is told of the state that its reader has."""
        since = version if isinstance(version, Since) else Since(version, -1)
        is_brief = since.is_brief and self._seal is NO_SEAL
        counts = [since.version, KEYS_LIVE_MS, since.epoch, int(is_brief), len(since.names)]
        return [*counts, *since.names]

    async def extend(self, incarnations: Sequence[str]) -> None:
        """Extend leases; see LeaseStore."""
        if incarnations:
            await self._run(_KEEP, self._all_keys, [_lease_ms(), *incarnations])

    async def release(
        self, incarnations: Sequence[str], *, names: Sequence[str] | None = None
    ) -> list[Lease]:
        """Drop leases; see LeaseStore."""
        if not incarnations:
            return []
        among = [""] if names is None else [len(names), *names]
        released = await self._run(_RELEASE, self._all_keys, [*among, *incarnations])
        return released_by(incarnations, released, self._seal)

    async def leases(self) -> list[Lease]:
        """All live leases by name."""
        return decode_leases(await self._run(_READ, self._all_keys, []), self._seal)

    async def set_activation(self, name: str, activation: Activation) -> None:
        """Remember an activation."""
        body = encode_activation(name, activation, self._seal)

        async def write() -> None:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hset(self._activations, name, body)
                pipe.pexpire(self._activations, KEYS_LIVE_MS)
                await pipe.execute()

        await self._bounded(write)

    async def activation(self, name: str) -> Activation | None:
        """The activation remembered."""

        async def read() -> Any:
            return await self._redis.hget(self._activations, name)

        found = await self._bounded(read)
        return decode_activation(name, found, self._seal) if found else None

    async def put_record(self, key: str, record: bytes, *, ttl_s: float) -> None:
        """Store a record."""
        sealed = close_record(key, record, self._seal)
        arguments = ["put", key, int(ttl_s * 1000), sealed, KEYS_LIVE_MS]
        await self._run(_RECORDS, self._record_keys, arguments)

    async def records(self) -> dict[str, bytes]:
        """Live records."""
        return open_records(await self._records(self._record_keys), self._seal)

    async def drop_record(self, key: str) -> None:
        """Remove a record."""
        await self._run(_RECORDS, self._record_keys, ["drop", key])

    async def put_stats(self, key: str, stats: bytes, *, ttl_s: float) -> None:
        """Store the counts of a process."""
        sealed = close_record(key, stats, self._seal, "stats")
        arguments = ["put", key, int(ttl_s * 1000), sealed, KEYS_LIVE_MS]
        await self._run(_RECORDS, self._stats_keys, arguments)

    async def stats(self, key: str | None = None) -> dict[str, bytes]:
        """The counts of processes."""
        wanted = [] if key is None else [key]
        return open_records(await self._records(self._stats_keys, *wanted), self._seal, "stats")

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._redis.aclose(close_connection_pool=True)

    async def _records(self, keys: Sequence[str], *wanted: str) -> dict[str, bytes]:
        flat = await self._run(_RECORDS, keys, ["get", *wanted])
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {key.decode(errors="replace"): record for key, record in pairs}

    async def _run(self, source: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return await self._bounded(lambda: self._scripts[source](keys=keys, args=arguments))

    async def _bounded(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Await a call for a bounded time, again when its connection had died or the server cannot answer yet."""
        give_up_at = asyncio.get_running_loop().time() + _CALL_TIMEOUT_S
        earlier: Exception | None = None
        while True:
            try:
                async with asyncio.timeout_at(give_up_at), self._turns:
                    return await call()
            except TROUBLE as error:
                await self._handle(error, earlier)
                if earlier is not None:
                    await asyncio.sleep(_RETRY_PAUSE_S)
                earlier = error

    async def _handle(self, error: Exception, earlier: Exception | None) -> None:
        """Prepare another attempt; raises where there is no use in one."""
        if self._endpoint.on_error_reply(error):
            await self._redis.connection_pool.disconnect()
        if isinstance(error, TimeoutError):
            raise BusUnavailableError(self._endpoint.url, reason_of(earlier or error)) from error
        if earlier is None:
            if "WRONGTYPE" in str(error):
                await self._mend()
        elif not self._will_pass(error):
            raise BusUnavailableError(self._endpoint.url, reason_of(error)) from error
        elif isinstance(error, ClusterDownError | BusyLoadingError):
            self._endpoint.complain(error)

    async def _mend(self) -> None:
        """Remove keys of wrong types."""
        keys, kinds = list(self._types), list(self._types.values())
        with contextlib.suppress(*TROUBLE):
            for key in await self._scripts[_MEND](keys=keys, args=kinds):
                logger.error("%s was no key of pbus, and is removed", key.decode(errors="replace"))

    async def _claim(self, lease: Lease) -> Any:
        return await self._run(_CLAIM, self._all_keys, [*self._row(lease), _lease_ms()])

    async def _evict(self, name: str, body: bytes) -> None:
        await self._run(_EVICT, self._all_keys, [name, body])

    def _row(self, lease: Lease) -> tuple[str, str, bytes]:
        return lease.name, head_of(lease), encode_lease(lease, self._seal)

    def _will_pass(self, error: Exception) -> bool:
        """Whether the server will answer by itself: it loads its data, or keys move in a cluster."""
        is_moving = self._endpoint.may_move and isinstance(error, MOVING)
        return is_moving or isinstance(error, BusyLoadingError)


def _texts(names: Sequence[bytes]) -> list[str]:
    return [name.decode(errors="replace") for name in names]


def _lease_ms() -> int:
    return int(LEASE_S * 1000)
