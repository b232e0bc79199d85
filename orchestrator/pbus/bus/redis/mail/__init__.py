"""Stored mail on Redis Streams."""

from pbus.bus.redis.mail.store import RedisMailStore

__all__ = ["RedisMailStore"]
