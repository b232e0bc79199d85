"""The bus on Postgres with PGMQ."""

from pbus.bus.pgmq.bus import PgmqBus
from pbus.bus.pgmq.leases import PgLeaseStore
from pbus.bus.pgmq.queue_store import PgmqQueueStore, standalone_store
from pbus.bus.pgmq.server.connection import HealingConnection
from pbus.bus.pgmq.server.endpoint import Endpoint

__all__ = [
    "Endpoint",
    "HealingConnection",
    "PgLeaseStore",
    "PgmqBus",
    "PgmqQueueStore",
    "standalone_store",
]
