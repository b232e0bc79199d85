"""Broker URLs: shown without their password, whatever they look like."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pbus.urls import mask_url, url_problem, url_scheme


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://[::1]", "redis://[::1]"),
        ("redis://user:pw@host/0", "redis://user:***@host/0"),
        ("redis://:pw@host/0", "redis://:***@host/0"),
        ("rediss://u%40x:p%40w@host:1/0?a=b", "rediss://u%40x:***@host:1/0?a=b"),
        ("redis://pw@host/0", "redis://***@host/0"),
        ("redis://host/0?password=pw&db=1", "redis://host/0?password=***&db=1"),
        ("redis://host/0?db=1&PASSWORD=p@w#x", "redis://host/0?db=1&PASSWORD=***"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
        (
            "redis+sentinel://u:pw@a:1,b:2/shop/0?sentinel_password=pw",
            "redis+sentinel://u:***@a:1,b:2/shop/0?sentinel_password=***",
        ),
        ("unix:///run/a@b:c.sock?db=0", "unix:///run/a@b:c.sock?db=0"),
        ("unix:///run/v.sock?db=0&password=pw", "unix:///run/v.sock?db=0&password=***"),
        ("unix://user:pw@/run/v.sock", "unix://user:***@/run/v.sock"),
        (
            "postgresql://u:p@h1:1,h2:2/db?sslpassword=x",
            "postgresql://u:***@h1:1,h2:2/db?sslpassword=***",
        ),
    ],
)
def test_shows_address_only(url, shown):
    """A URL keeps its user, address and harmless parameters."""
    assert shown == mask_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@ss@host/0", "redis://u:***@host/0"),
        ("redis://u:p/s#s?@host/0", "redis://u:***@host/0"),
        ("redis://a/b:pw@host", "redis://:***@host"),
        ("redis://user:pw", "redis://user:***"),
        ("redis://user:pw/x", "redis://user:***"),
        ("redis:///:pw@host", "redis://:***@host"),
        ("user:pw@host", "user:***@host"),
        ("redis:pw@host", "redis:***@host"),
        ("pw@host", "***@host"),
        ("", ""),
        ("host", "host"),
        ("://", "://"),
    ],
)
def test_masks_malformed_urls(url, shown):
    """What is no proper URL still gives no password away."""
    assert shown == mask_url(url)


PASSWORDS = st.text(min_size=4, max_size=20).map(lambda text: f"Zz9{text}9zZ")


@given(PASSWORDS, st.sampled_from(["redis", "rediss", "postgresql", "unix"]))
def test_never_shows_quoted_password(password, scheme):
    """A percent-encoded password is gone from the shown URL."""
    shown = mask_url(f"{scheme}://user:{quote(password, safe='', errors='replace')}@host/0")

    assert f"{scheme}://user:***@host/0" == shown


@given(PASSWORDS.filter(lambda text: "@" not in text))
def test_never_shows_raw_password(password):
    """A password that is not percent-encoded is gone as well."""
    shown = mask_url(f"redis://user:{password}@host/0")

    assert "Zz9" not in shown
    assert "9zZ" not in shown


@given(st.text())
def test_masks_any_text(text):
    """Masking never fails, and masking twice shows no more and no less."""
    assert mask_url(mask_url(text)) == mask_url(text)


@pytest.mark.parametrize(
    ("url", "scheme"),
    [
        ("redis://host", "redis"),
        ("REDISS://host", "rediss"),
        ("unix:///x", "unix"),
        ("no url", ""),
        ("redis:host", ""),
        ("se cret://host", ""),
    ],
)
def test_reads_scheme(url, scheme):
    """The scheme is what stands before `://`, if that could be one."""
    assert scheme == url_scheme(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://localhost",
        "redis://:pw@localhost:6379/15?health_check_interval=2",
        "rediss://user:p%2Fw@db.example:6380",
        "unix:///run/valkey.sock?db=1",
        "unix://run/valkey.sock",
        "unix://user@/run/valkey.sock",
        "redis+cluster://user:pw@node:7000",
        "rediss+cluster://node:7000/0",
        "redis+sentinel://one:26379,two,[::1]:26379/shop/0?sentinel_password=x",
        "rediss+sentinel://user:pw@one/shop",
        "memory://",
        "postgresql://",
        "postgres://user:p%2Fw@db.example:5432/app?sslmode=require",
        "postgresql://pbus@/postgres?host=%2Frun%2Fpbus",
        "postgresql://one:5432,two:5433/app",
    ],
)
def test_accepts_usable_urls(url):
    """URLs that the drivers take have no problem."""
    assert url_problem(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://host:port",
        "redis://host:99999",
        "redis://host:0",
        "redis://u:hunter/2@host",
        "redis://[::1",
        "redis://host/name",
        "redis://ho st",
        "redis://host\n",
        "unix://",
        "unix:///",
        "redis+cluster://node:7000/1",
        "redis+sentinel://one:26379",
        "redis+sentinel://one:26379/shop/x",
        "redis+sentinel://one:0/shop",
        "memory://shop",
        "postgresql://host:port/app",
        "postgresql://one:5432,two:0/app",
        "postgresql://u:hunter/2@host",
        "postgres://ho st",
    ],
)
def test_refuses_broken_urls(url):
    """A URL that could reach no broker is told so without being quoted."""
    problem = url_problem(url)

    assert problem is not None
    assert "hunter" not in problem
