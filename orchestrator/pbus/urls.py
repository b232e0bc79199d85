"""Broker URLs: the backend of a scheme, checks, and masking of passwords."""

import re
from collections.abc import Mapping
from typing import Literal
from urllib.parse import SplitResult, urlsplit

Backend = Literal["redis", "pgmq", "memory"]

# A new backend is a name above and its schemes here; nothing else in the topology knows them.
BACKEND_OF_SCHEME: Mapping[str, Backend] = {
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "redis+cluster": "redis",
    "rediss+cluster": "redis",
    "redis+sentinel": "redis",
    "rediss+sentinel": "redis",
    "postgresql": "pgmq",
    "postgres": "pgmq",
    "memory": "memory",
}
MEMORY_URL = "memory://"  # a bus within one process

_SENTINEL = "+sentinel"
_MASK = "***"
_SECRET_PARAMETER = re.compile(
    r"([?&;](?:\w*password|passwd|pass|pwd|\w*secret|\w*token|api_?key)=)[^&]*", re.IGNORECASE
)
_PLAIN_USER = re.compile(r"[\w.%+~-]*")
_NETLOC = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}")


def url_scheme(url: str) -> str:
    """The part before ``://`` in lower case; "" when that is no scheme."""
    scheme, separator, _ = url.partition("://")
    return scheme.lower() if separator and _SCHEME.fullmatch(scheme) else ""


def split_url(url: str) -> SplitResult:
    """Split a URL that may have several hosts, which ``urlsplit`` does not.

    Raises:
        ValueError: It is no URL. Hosts are not checked.
    """
    found = _NETLOC.match(url)
    if found is None:
        return urlsplit(url)
    start, end = found.span(1)
    return urlsplit(f"{url[:start]}host{url[end:]}")._replace(netloc=found[1])


def mask_url(url: str) -> str:
    """Replace passwords in a URL by ``***``, also in a malformed one.

    Where special characters are not percent-encoded, a part of the address may be masked, too.
    """
    url = _SECRET_PARAMETER.sub(rf"\1{_MASK}", url)
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    if scheme.lower() == "unix" and rest.startswith("/"):
        return url
    return scheme + separator + _mask_authority(rest)


def _mask_authority(rest: str) -> str:
    credentials, at, address = rest.rpartition("@")
    if not at:
        return _mask_port(rest)
    user, colon, _ = credentials.partition(":")
    shown = user if colon and _PLAIN_USER.fullmatch(user) else ""
    return f"{shown}:{_MASK}@{address}" if shown or colon else f"{_MASK}@{address}"


def _mask_port(rest: str) -> str:
    """Mask a port that is no number, as in `redis://user:password`."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if authority.endswith("]"):
        return rest
    host, colon, port = authority.rpartition(":")
    return f"{host}:{_MASK}" if colon and port and not port.isdecimal() else rest


def is_open_to_all(url: str) -> bool:
    """Whether a URL leads to a broker over a network, without a password."""
    scheme = url_scheme(url)
    if scheme in {"", "unix", "memory"}:
        return False
    try:
        parts = split_url(url)
    except ValueError:
        return False
    is_local = not parts.hostname and "host=" in parts.query
    return not (parts.password or is_local or _SECRET_PARAMETER.search(url))


def url_problem(url: str) -> str | None:
    """The problem of a broker URL of a known scheme, without quoting it; None when there is none."""
    if url_scheme(url) == "memory":
        return None if url == MEMORY_URL else "expected nothing after memory://"
    if any(character.isspace() or not character.isprintable() for character in url):
        return "expected a URL without spaces and control characters"
    try:
        parts = split_url(url)
        ports = [urlsplit(f"//{host}").port for host in _hosts(parts)]
    except ValueError:
        return (
            "expected HOST:PORT with a port from 1 to 65535"
            " (percent-encode special characters in a user or password)"
        )
    if 0 in ports:
        return "expected a port from 1 to 65535, got 0"
    return _path_problem(parts)


def _hosts(parts: SplitResult) -> list[str]:
    """The hosts as HOST:PORT; a URL for Postgres or sentinels may have several."""
    if BACKEND_OF_SCHEME.get(parts.scheme) != "pgmq" and not parts.scheme.endswith(_SENTINEL):
        return [parts.netloc]
    return parts.netloc.rpartition("@")[2].split(",")


def _path_problem(parts: SplitResult) -> str | None:
    if parts.scheme == "unix":
        return None if parts.path.strip("/") else "expected the path of a socket after unix://"
    database = parts.path.strip("/")
    if parts.scheme.endswith(_SENTINEL):
        service, _, database = database.partition("/")
        if not service:
            return "expected the name of the sentinels' service after the hosts, like /mymaster/0"
    if parts.scheme.endswith("+cluster") and database not in {"", "0"}:
        return "expected no database: a cluster has only one"
    if BACKEND_OF_SCHEME.get(parts.scheme) == "redis" and database and not database.isdecimal():
        return "expected a database number after the host, like /0"
    return None
