"""Settings of connections to Redis."""

import redis
from redis import utils
from redis.asyncio import Redis
from redis.driver_info import DriverInfo

from pbus.bus.redis.server.endpoint import Endpoint


def test_no_connection_reads_the_metadata_of_its_package(monkeypatch):
    """That is a file to parse for each of them; the server is told the version all the same."""
    read: list[str] = []
    monkeypatch.setattr(utils, "get_lib_version", lambda: read.append("metadata") or "0")
    endpoint = Endpoint(url="redis://nowhere", redis=None)
    first, second = endpoint.connection(), endpoint.connection()
    endpoint.client(max_connections=1)
    assert [] == read
    assert [redis.__version__] * 2 == [one.driver_info.lib_version for one in (first, second)]


def test_a_client_may_name_itself():
    """The name that a user's own client has stays."""
    named = Redis(host="nowhere", driver_info=DriverInfo(name="mine", lib_version="1"))
    info = Endpoint(url=None, redis=named).connection().driver_info
    assert ("mine", "1") == (info.formatted_name, info.lib_version)
