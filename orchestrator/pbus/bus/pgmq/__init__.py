"""The bus on Postgres with PGMQ."""

from pbus.bus.pgmq.bus import PgmqBus
from pbus.bus.pgmq.endpoint import Endpoint
from pbus.bus.pgmq.leases import PgLeaseStore
from pbus.bus.pgmq.link import Link
from pbus.bus.pgmq.mail import PgmqMailStore, mail_store

__all__ = ["Endpoint", "Link", "PgLeaseStore", "PgmqBus", "PgmqMailStore", "mail_store"]
