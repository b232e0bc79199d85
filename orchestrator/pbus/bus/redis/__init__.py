"""The bus over Redis or Valkey: publish/subscribe for messages, keys for leases."""

from pbus.bus.redis.bus import RedisBus

__all__ = ["RedisBus"]
