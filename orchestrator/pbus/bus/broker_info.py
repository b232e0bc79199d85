"""Facts about a broker, of any kind."""

import msgspec


class BrokerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A broker as one connection finds it.

    Attributes:
        product: "Valkey", "Redis" or "Postgres".
        version: Of the server.
        latency_s: Of the quickest of three empty round trips.
        ahead_s: By how much its clock is ahead of this process'.
        may_evict: The policy by which it removes keys when it is short of memory; None: it does not, or
            does not say.
        pgmq: The version of PGMQ; None on other brokers.
        schema: "current", "missing" (made at the first `pbus up`) or "other" (of another version of
            pbus); None on other brokers.
    """

    product: str
    version: str
    latency_s: float
    ahead_s: float
    may_evict: str | None = None
    pgmq: str | None = None
    schema: str | None = None
