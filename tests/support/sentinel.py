"""A Sentinel over a primary and a replica."""

import contextlib
from types import TracebackType
from typing import Self

from support.valkey import Valkey
from support.waiting import eventually

SERVICE = "shop"


class Watched:
    """A primary, a replica of it, and a sentinel."""

    def __init__(self) -> None:
        at_once = ("--repl-diskless-sync-delay", "0")
        self.primary, self.replica = Valkey(*at_once, tcp=True), Valkey(tcp=True)
        self.sentinels: list[Valkey] = []

    @property
    def hosts(self) -> list[tuple[str, int]]:
        """Where the sentinels are."""
        return [("127.0.0.1", one.port) for one in self.sentinels]

    def __enter__(self) -> Self:
        self.primary.start()
        self.replica.start()
        self.replica.command("REPLICAOF", "127.0.0.1", str(self.primary.port))
        sentinel = Valkey(
            tcp=True,
            sentinel_config=(
                f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} 1\n"
                f"sentinel known-replica {SERVICE} 127.0.0.1 {self.replica.port}\n"
                f"sentinel down-after-milliseconds {SERVICE} 500\n"
            ),
        )
        sentinel.start()
        self.sentinels.append(sentinel)  # alone: several might split their votes
        assert eventually(self._are_known), "the sentinel does not see the replica"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in (*self.sentinels, self.primary, self.replica):
            server.close()

    def is_promoted(self) -> bool:
        """Whether the replica is the primary; what asks is cut off meanwhile."""
        with contextlib.suppress(OSError):
            return b"role:master" in self.replica.command("INFO", "replication")
        return False

    def _are_known(self) -> bool:
        port = str(self.replica.port).encode()
        return all(
            port in one.command("SENTINEL", "REPLICAS", SERVICE) for one in self.sentinels
        ) and b"master_link_status:up" in self.replica.command("INFO", "replication")
