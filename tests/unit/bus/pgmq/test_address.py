"""A Postgres URL is read in full; the environment has no say."""

import os
import pwd
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncpg")

from pbus.bus.pgmq.server.address import Address, read_url

OTHERS = {
    "PGHOST": "elsewhere.invalid",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1,2,x",
    "PGUSER": "mallory",
    "PGPASSWORD": "wrong",
    "PGDATABASE": "other",
    "PGPASSFILE": "/proc/1/mem",
    "PGSERVICE": "other",
    "PGSERVICEFILE": "/nowhere/services",
    "PGSSLMODE": "nonsense",
    "PGSSLNEGOTIATION": "nonsense",
    "PGSSLCERT": "/nowhere/cert",
    "PGSSLKEY": "/nowhere/key",
    "PGSSLROOTCERT": "/nowhere/root",
    "PGSSLCRL": "/nowhere/crl",
    "PGSSLMINPROTOCOLVERSION": "nonsense",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1",
    "SSLKEYLOGFILE": "/nowhere/keys",
    "PGTARGETSESSIONATTRS": "standby",
    "PGGSSLIB": "nonsense",
    "PGKRBSRVNAME": "other",
    "PGOPTIONS": "-c nonsense=1",
    "USER": "mallory",
    "LOGNAME": "mallory",
}
ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What is set for other programs, and a home folder that has nothing."""
    for name, value in OTHERS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def parts(address: Address) -> tuple[Any, ...]:
    """Where it leads."""
    pairs = [f"{host}:{port}" for host, port in zip(address.hosts, address.ports, strict=True)]
    return address.user, address.password, pairs, address.database


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40@h:1/d", ("u", "p@", ["h:1"], "d")),
        ("postgresql://h", (ME, None, ["h:5432"], ME)),
        ("postgres://u@h:1,[::1],i:2/d", ("u", None, ["h:1", "::1:5432", "i:2"], "d")),
        ("postgresql://u@/d?host=/run/x", ("u", None, ["/run/x:5432"], "d")),
        ("postgresql://u@/d?host=/a,b&port=1,2", ("u", None, ["/a:1", "b:2"], "d")),
        ("postgresql://u@h,i/d?port=7", ("u", None, ["h:7", "i:7"], "d")),
        ("postgresql://%2Frun%2Fx/d?user=u&password=p", ("u", "p", ["/run/x:5432"], "d")),
        ("postgresql://u@h?dbname=d", ("u", None, ["h:5432"], "d")),
    ],
)
def test_url_is_read(url: str, expected: tuple[Any, ...]) -> None:
    """Each form that libpq knows, with gaps filled from nowhere else."""
    assert expected == parts(read_url(url))


def test_gaps_are_filled_here() -> None:
    """Without a host the usual sockets are tried; what is left of the URL is about the session."""
    address = read_url("postgresql:///d?application_name=x&sslmode=require&options=-c%20a%3D1")

    assert ("/run/postgresql", "localhost") == (address.hosts[0], address.hosts[-1])
    assert {"application_name": "x", "options": "-c a=1"} == address.settings
    assert {"sslmode": "require"} == address.tls
    assert ("any", "postgres", "gssapi") == (address.target, address.service_name, address.gsslib)


@pytest.mark.parametrize(
    "url",
    ["postgresql://h:x/d", "postgresql://h,i/d?port=1,2,3", "postgresql://[::1/d",
     "postgresql://h/d?service=unknown"],
)  # fmt: skip
def test_malformed_url_is_refused(url: str) -> None:
    """A port that is no number, more ports than hosts, a service that is not defined."""
    with pytest.raises(ValueError):  # noqa: PT011 - its text may quote a password
        read_url(url)


def test_ways_follow_sslmode(others: Path) -> None:
    """TLS is tried first, last, or alone; a missing file is named."""

    def ways(query: str, host: str = "h") -> list[str]:
        address = read_url(f"postgresql://u@{host}/d?{query}")
        return ["plain" if way is False else way.verify_mode.name for way in address._ways()]

    assert ["CERT_NONE", "plain"] == ways("application_name=x")
    assert ["plain", "CERT_NONE"] == ways("sslmode=allow")
    assert ["plain"] == ways("sslmode=disable")
    assert ["CERT_NONE"] == ways("sslmode=require")
    assert ["plain"] == ways("host=/run/x&sslmode=require", host="")
    with pytest.raises(ValueError):  # noqa: PT011
        ways("sslmode=nonsense")
    for query in ("sslmode=verify-full", "sslmode=verify-full&sslrootcert=/nowhere/x"):
        with pytest.raises(OSError, match=r"root\.crt|/nowhere/x"):
            ways(query)


def test_home_folder_is_used(others: Path) -> None:
    """A password comes from `.pgpass`, a service from `.pg_service.conf`, as with libpq."""
    (others / ".pg_service.conf").write_text("[shop]\nhost=h\nport=7\nuser=u\ndbname=d\n")
    pgpass = others / ".pgpass"
    pgpass.write_text("# h:7:d:u:no\nh:8:d:u:no\n\nh:*:d:u:a\\:b\\\\c\n*:*:*:*:any\n")
    pgpass.chmod(0o600)

    address = read_url("postgresql://?service=shop")
    assert ("u", None, ["h:7"], "d") == parts(address)
    assert "a:b\\c" == address._stored_password()
    assert "any" == read_url("postgresql://x@/d?host=/run/x")._stored_password()
    pgpass.chmod(0o644)
    assert "" == address._stored_password()
