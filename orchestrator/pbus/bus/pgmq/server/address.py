"""A Postgres URL read in full: its gaps are filled from here, never from the environment.

asyncpg would fill them from PGPORT, PGSSLMODE and a dozen other variables that are meant for other
programs. What libpq keeps in the home folder (`.pgpass`, `.postgresql`) is used.
"""

import configparser
import logging
import os
import pwd
import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import asyncpg
import msgspec
from asyncpg import exceptions

from pbus.bus.pgmq.server.tls import TLS_MODES, tls_context
from pbus.concurrency.forks import hold_connection
from pbus.urls import split_url

_HOSTS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "localhost")  # noqa: S108 - as libpq
_PORT = 5432
_BRACKETS = re.compile(r"\[([^\]]+)\](?::(\d+))?")
_PGPASS_FIELDS = 5
_PRIVATE = 0o077
_TLS = (
    "sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
)  # fmt: skip

logger = logging.getLogger(__name__)


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a connection to a database needs to know.

    Attributes:
        hosts: Names, addresses or folders of sockets, in the order to try them.
        ports: One a host.
        password: None: look it up in `passfile`.
        tls: The parameters of the URL about TLS.
        settings: Of the session.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    user: str
    database: str
    password: str | None = None
    passfile: str = "~/.pgpass"
    tls: dict[str, str] = {}
    settings: dict[str, str] = {}
    target: str = "any"
    service_name: str = "postgres"
    gsslib: str = "gssapi"

    async def connect(self) -> "asyncpg.Connection[Any]":
        """Connect, with and without TLS as `sslmode` says.

        Raises:
            ValueError: A parameter of the URL cannot be read.
            OSError: A file that the URL names cannot be read, or no host is reachable.
            PostgresError: The server refuses.
        """
        ways = self._ways()
        for way in ways[:-1]:
            try:
                return await self._connect(way)
            except Exception as error:
                if not _is_about_tls(error):
                    raise
        return await self._connect(ways[-1])

    async def _connect(self, way: "ssl.SSLContext | bool") -> "asyncpg.Connection[Any]":
        password = self.password
        connection = await asyncpg.connect(
            host=list(self.hosts),
            port=list(self.ports),
            user=self.user,
            database=self.database,
            password=self._stored_password() if password is None else password,
            ssl=way,
            direct_tls=self.tls.get("sslnegotiation") == "direct",
            server_settings=self.settings or None,
            target_session_attrs=self.target,
            krbsrvname=self.service_name,
            gsslib=self.gsslib,
        )
        hold_connection(connection, lambda one: one._transport)  # noqa: SLF001 - the only way
        return connection

    def _ways(self) -> "list[ssl.SSLContext | bool]":
        mode = self.tls.get("sslmode", "prefer")
        if mode not in TLS_MODES:
            raise ValueError
        if mode == "disable" or all(host.startswith("/") for host in self.hosts):
            return [False]
        context = tls_context(mode, self.tls)
        if mode == "allow":
            return [False, context]
        return [context, False] if mode == "prefer" else [context]

    def _stored_password(self) -> str:
        for fields in _read_pgpass(Path(self.passfile).expanduser()):
            for host, port in zip(self.hosts, self.ports, strict=True):
                name = "localhost" if host.startswith("/") else host
                wanted = (name, str(port), self.database, self.user)
                if all(field in {"*", want} for field, want in zip(fields, wanted, strict=False)):
                    return fields[-1]
        return ""


def read_url(dsn: str) -> Address:
    """Read a URL.

    Raises:
        ValueError: It is malformed. The text may quote a password.
    """
    parts = split_url(dsn)
    query = _read_query(parts.query)
    credentials, _, netloc = parts.netloc.rpartition("@")
    user, _, password = map(unquote, credentials.partition(":"))
    several = "," in netloc + query.get("host", "")
    hosts, ports = _read_hosts(
        [unquote(host) for host in netloc.split(",")] if netloc else [],
        query.pop("host", ""),
        query.pop("port", ""),
    )
    user = user or query.pop("user", "") or _own_name()
    databases = (unquote(parts.path[1:]), query.pop("dbname", ""), query.pop("database", ""), user)
    given = query.pop("password", None)
    return Address(
        hosts=tuple(hosts),
        ports=tuple(ports),
        user=user,
        database=next(filter(None, databases)),
        password=password or given,
        passfile=query.pop("passfile", "~/.pgpass"),
        target=query.pop("target_session_attrs", "read-write" if several else "any"),
        service_name=query.pop("krbsrvname", "postgres"),
        gsslib=query.pop("gsslib", "gssapi"),
        tls={name: query.pop(name) for name in _TLS if name in query},
        settings=query,
    )


def _read_query(text: str) -> dict[str, str]:
    """The parameters of a URL, with those of the service that it names."""
    query = dict(parse_qsl(text, strict_parsing=True)) if text else {}
    if "service" in query:
        query = {**_read_service(query.pop("service")), **query}
    return query


def _read_hosts(netloc: list[str], given: str, port: str) -> tuple[list[str], list[int]]:
    pairs = _split_specs(netloc, given.split(",") if given else [])
    if not _have_host(pairs):
        own = next((own for _, own in pairs), "")
        pairs = [(host, own) for host in _HOSTS]
    return [host or "localhost" for host, _ in pairs], _read_ports([own for _, own in pairs], port)


def _read_ports(own: list[str], port: str) -> list[int]:
    """The port of each host: its own, or else one of those given beside them."""
    defaults = port.split(",") if port else [str(_PORT)]
    if len(defaults) == 1:
        defaults *= len(own)
    return [int(one or default) for one, default in zip(own, defaults, strict=True)]


def _split_specs(netloc: list[str], specs: list[str]) -> list[tuple[str, str]]:
    """Hosts and ports: those before the path, or those of the query where the former name no host."""
    pairs = _split_hosts(netloc or specs)
    return pairs if _have_host(pairs) else _split_hosts(specs) or pairs


def _split_hosts(specs: list[str]) -> list[tuple[str, str]]:
    return [_split_host(spec) for spec in specs]


def _have_host(pairs: list[tuple[str, str]]) -> bool:
    return any(host for host, _ in pairs)


def _split_host(spec: str) -> tuple[str, str]:
    if spec.startswith("/"):
        return spec, ""
    if spec.startswith("["):
        match = _BRACKETS.fullmatch(spec)
        if match is None:
            raise ValueError
        return match[1], match[2] or ""
    host, _, port = spec.partition(":")
    return host, port


def _read_service(name: str) -> dict[str, str]:
    """The parameters of a service that the URL names."""
    file = configparser.ConfigParser(interpolation=None)
    file.read(Path("~/.pg_service.conf").expanduser())
    if not file.has_section(name):
        raise ValueError
    return dict(file[name])


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return "postgres"  # a user id without a name, as containers have


def _is_about_tls(error: Exception) -> bool:
    """Whether the other way, with TLS or without, may be let in."""
    if isinstance(error, exceptions.InvalidPasswordError):
        return False
    is_rejected = type(error) is ConnectionError  # asyncpg's own, of a server without TLS
    is_refused = isinstance(error, exceptions.InvalidAuthorizationSpecificationError)
    return is_rejected or is_refused or isinstance(error, ssl.SSLError)


def _read_pgpass(path: Path) -> list[list[str]]:
    """The entries of a password file, unescaped; none where it may not be used."""
    try:
        if path.stat().st_mode & _PRIVATE:
            logger.warning("%s is not used: others may read it", path)
            return []
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    entries = [
        [re.sub(r"\\(.)", r"\1", field) for field in re.split(r"(?<!\\):", line, maxsplit=4)]
        for line in lines
        if not line.startswith("#")
    ]
    return [fields for fields in entries if len(fields) == _PGPASS_FIELDS]
