"""Leases on Postgres: one table, each step one function of the schema."""

from collections.abc import Sequence
from typing import Any

from pbus.bus.pgmq.server.connection import HealingConnection
from pbus.leases import (
    LEASE_S,
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

_READ = "SELECT unnest(pbus.lease_bodies($1))"
_RENEW = "SELECT * FROM pbus.lease_renew($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_EVICT = "SELECT pbus.lease_evict($1, $2, $3)"
_SET_ACTIVATION = "SELECT pbus.activation_set($1, $2, $3)"
_PUT_RECORD = "SELECT pbus.record_put($1, $2, $3, $4)"
_RECORDS = "SELECT * FROM pbus.records($1)"
_PUT_STATS = "SELECT pbus.stats_put($1, $2, $3, $4)"
_STATS = "SELECT * FROM pbus.stats_read($1, $2)"


class PgLeaseStore:
    """A LeaseStore in the database of a PgmqBus; see the protocol for its methods.

    Args:
        link: The connection for work.
        channel: The bus channel.
        seal: Of the channel.
    """

    def __init__(self, link: HealingConnection, channel: str, seal: Seal = NO_SEAL) -> None:
        self._seal = seal
        self._link = link
        self._channel = channel

    async def claim(self, lease: Lease) -> Lease | None:
        """Take the name; see LeaseStore."""
        return await claim_name(
            lease, self._seal, self._link.url, claim=self._claim, evict=self._evict
        )

    async def renew(self, leases: Sequence[Lease], *, version: int | Since = -1) -> Renewal:
        """Renew leases; see LeaseStore."""
        columns = list(zip(*map(self._row, leases), strict=True)) or [(), (), (), ()]
        if isinstance(version, Since):
            is_brief = version.is_brief and self._seal is NO_SEAL
            told: tuple[Any, ...] = (version.version, list(version.names), is_brief)
        else:
            told = (version, None, False)
        (row,) = await self._link.call(_RENEW, self._channel, *columns, LEASE_S, *told)
        held = set(row["refused"])
        claims = [(one.name, await self.claim(one)) for one in leases if one.name in held]
        holders = {name: holder for name, holder in claims if holder is not None}
        live = None if row["leases"] is None else decode_leases(row["leases"], self._seal)
        return Renewal(
            version=row["version"],
            leases=live,
            absent=row["absent"],
            expired=truly_expired(decode_leases(row["expired"], self._seal), live),
            refused=list(holders),
            holders=holders,
        )

    async def extend(self, incarnations: Sequence[str]) -> None:
        """Extend leases; see LeaseStore."""
        if incarnations:
            sql = "SELECT pbus.lease_extend($1, $2, $3)"
            await self._link.call(sql, self._channel, list(incarnations), LEASE_S)

    async def release(
        self, incarnations: Sequence[str], *, names: Sequence[str] | None = None
    ) -> list[Lease]:
        """Drop leases; see LeaseStore. Finding them by name would save nothing here."""
        del names
        if not incarnations:
            return []
        sql = "SELECT * FROM pbus.lease_release($1, $2)"
        rows = await self._link.call(sql, self._channel, list(incarnations))
        return released_by(incarnations, (row[0] for row in rows), self._seal)

    async def leases(self) -> list[Lease]:
        """All live leases by name."""
        rows = await self._link.call(_READ, self._channel)
        return decode_leases((row[0] for row in rows), self._seal)

    async def set_activation(self, name: str, activation: Activation) -> None:
        """Remember an activation."""
        body = encode_activation(name, activation, self._seal).decode()
        await self._link.call(_SET_ACTIVATION, self._channel, name, body)

    async def activation(self, name: str) -> Activation | None:
        """The activation remembered."""
        sql = "SELECT body FROM pbus.activation WHERE channel = $1 AND name = $2"
        rows = await self._link.call(sql, self._channel, name)
        return decode_activation(name, rows[0][0], self._seal) if rows else None

    async def put_record(self, key: str, record: bytes, *, ttl_s: float) -> None:
        """Store a record."""
        sealed = close_record(key, record, self._seal)
        await self._link.call(_PUT_RECORD, self._channel, key, sealed, ttl_s)

    async def records(self) -> dict[str, bytes]:
        """Live records."""
        rows = await self._link.call(_RECORDS, self._channel)
        return open_records({row["key"]: row["body"] for row in rows}, self._seal)

    async def drop_record(self, key: str) -> None:
        """Remove a record."""
        await self._link.call("SELECT pbus.record_drop($1, $2)", self._channel, key)

    async def put_stats(self, key: str, stats: bytes, *, ttl_s: float) -> None:
        """Store the counts of a process."""
        sealed = close_record(key, stats, self._seal, "stats")
        await self._link.call(_PUT_STATS, self._channel, key, sealed, ttl_s)

    async def stats(self, key: str | None = None) -> dict[str, bytes]:
        """The counts of processes."""
        rows = await self._link.call(_STATS, self._channel, key)
        return open_records({row["key"]: row["body"] for row in rows}, self._seal, "stats")

    async def _claim(self, lease: Lease) -> str | None:
        sql = "SELECT pbus.lease_claim($1, $2, $3, $4, $5, $6)"
        rows = await self._link.call(sql, self._channel, *self._row(lease), LEASE_S)
        holder: str | None = rows[0][0]
        return holder

    async def _evict(self, name: str, body: bytes) -> None:
        await self._link.call(_EVICT, self._channel, name, body.decode())

    def _row(self, lease: Lease) -> tuple[str, str, str, str]:
        return (
            lease.name,
            lease.incarnation,
            head_of(lease),
            encode_lease(lease, self._seal).decode(),
        )
