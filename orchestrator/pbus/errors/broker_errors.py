"""Errors of brokers: unreachable, refusing, or unfit."""

from pbus.errors.bus_errors import BusError


class BusUnavailableError(BusError):
    """The broker cannot be reached or refuses us.

    Attributes:
        url: The address, with the password masked.
        reason: The message of the broker or the operating system.
    """

    def __init__(self, url: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(
            f"cannot use the message broker at {url}: {reason}",
            hint=hint or "is it running, and are the address, user and password right?",
        )
        self.url = url
        self.reason = reason


class BrokerFaultError(BusUnavailableError):
    """The broker is reachable, and cannot do what it was asked; a retry would fail, too."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason, hint="the broker's log says more")


class BrokerRefusedError(BusUnavailableError):
    """The broker is reachable and refuses this process; a retry would fail, too."""


class BrokerLoginError(BrokerRefusedError):
    """The broker does not let this user into this database."""

    def __init__(self, url: str, reason: str) -> None:
        hint = (
            "check the user, the password and the database of the URL, and the server's pg_hba.conf"
        )
        super().__init__(url, reason, hint=hint)


class BrokerGrantError(BrokerRefusedError):
    """The user lacks a right that pbus needs."""

    def __init__(self, url: str, reason: str) -> None:
        hint = (
            "run `pbus up` once as a role that has CREATE on the database (GRANT CREATE ON DATABASE"
            " ... TO ...), or as the owner of the schemas pgmq and pbus, after each new version of"
            " pbus; README names the rights that other roles need (under Postgres)"
        )
        super().__init__(url, reason, hint=hint)


class BrokerPoolerError(BrokerRefusedError):
    """A connection pool before the broker keeps no session."""

    def __init__(self, url: str) -> None:
        hint = (
            "connect to the server itself, or through a pool in session mode"
            " (PgBouncer: pool_mode=session for this database)"
        )
        reason = "a connection pool in transaction mode stands before it, which keeps no session"
        super().__init__(url, f"{reason}, so nothing would be heard of new messages", hint=hint)


class BrokerVersionError(BrokerRefusedError):
    """The broker is too old.

    Attributes:
        needed: The oldest that will do.
    """

    def __init__(self, url: str, found: str, needed: str) -> None:
        super().__init__(url, f"it is {found}", hint=f"use {needed} or later")
        self.needed = needed


class PgmqMissingError(BrokerRefusedError):
    """The database has no PGMQ that pbus can use, and pbus could not install it."""

    def __init__(self, url: str, reason: str) -> None:
        hint = (
            "run CREATE EXTENSION pgmq (or ALTER EXTENSION pgmq UPDATE) where the server has it,"
            " else pgmq.install.install_pgmq_sql of the package pgmq>=1.1"
        )
        super().__init__(url, reason, hint=hint)
