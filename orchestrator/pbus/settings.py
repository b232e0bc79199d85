"""The settings of a bus: one value from a topology's keys to each process and its bus.

It has three forms: the keys of `bus:` in a topology, the keywords of `connect()`, and the variables
that `pbus up` gives to the programs that it starts.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self, TypedDict, cast

import msgspec

from pbus.errors import BusError
from pbus.urls import BACKEND_OF_SCHEME, Backend, is_open_to_all, mask_url, url_scheme

Encoding = Literal["json", "msgpack"]
DeliveryMode = Literal["at-most-once", "at-least-once"]
WhenFull = Literal["wait", "refuse"]

DEFAULT_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
DEFAULT_SEND_TIMEOUT_S = 10.0
MAX_BACKLOG = 100_000  # messages of a queue
MAX_BACKLOG_BYTES = 256 * 1024 * 1024  # and bytes of them

GRACE_VARIABLE = "PBUS_STOP_GRACE"  # seconds that a signal leaves to jobs, where `stop` gives them
DRAIN_VARIABLE = "PBUS_STOP_DRAIN"  # "0": a signal leaves none
PROJECT_VARIABLE = "PBUS_PROJECT"  # the project of a `pbus` in a worker; a user may set it, too
STATE_VARIABLE = "PBUS_STATE_DIR"  # for several projects of one name

_DELIVERY_OF_BACKEND: Mapping[Backend, DeliveryMode] = {"pgmq": "at-least-once"}


class DeliveryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Treatment of stored messages.

    Attributes:
        max_backlog: Messages a queue holds at most.
        max_backlog_bytes: Bytes of them.
        when_full: A send to a full queue waits for the send timeout, or raises at once.
        max_attempts: Handler starts that may raise before a message is dead-lettered.
        max_crash_attempts: Processes that may end while handling it before it is dead-lettered.
        declared: Worker names whose queues outlive their processes; no topology key.
    """

    max_backlog: int = MAX_BACKLOG
    max_backlog_bytes: int = MAX_BACKLOG_BYTES
    when_full: WhenFull = "wait"
    max_attempts: int = 5
    max_crash_attempts: int = 3
    declared: frozenset[str] = frozenset()


class BusOptions(TypedDict, total=False):
    """The keywords of `connect()`, `RedisBus` and `PgmqBus`; see `BusSettings`.

    None leaves a setting as it is.
    """

    channel: str | None
    max_message_bytes: int | None
    encoding: str | None
    key: str | None
    encrypt: bool | None
    delivery: str | None
    send_timeout: float | None
    stats: bool | None
    direct: bool | None
    delivery_options: DeliveryOptions | None


class BusSettings(msgspec.Struct, frozen=True, kw_only=True):
    """All that processes have to agree on to share a bus.

    Attributes:
        backend: The kind of bus.
        url: Where the broker is, password included; None for one that pbus starts itself.
        channel: Separates buses on one broker.
        max_message_bytes: The largest encoded message.
        encoding: Of what is sent, "json" or "msgpack" (Redis only); both are read.
        key: Seals what is sent, see `pbus.seal`; several with commas between them: the first one
            seals, all open. None: nothing is sealed.
        encrypt: Nothing can be read without the key either.
        delivery: "at-most-once", or "at-least-once": stored in the broker until handled.
        send_timeout: Seconds a send waits for room, or for the broker to be back.
        stats: Whether processes count and time what they send and handle, for `pbus stats`.
        direct: Whether processes of one host hand messages to each other by sockets, where they can.
        delivery_options: With at-least-once.
    """

    backend: Backend = "redis"
    url: str | None = None
    channel: str = "pbus"
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    encoding: Encoding = "json"
    key: str | None = None
    encrypt: bool = False
    delivery: DeliveryMode = "at-most-once"
    send_timeout: float = DEFAULT_SEND_TIMEOUT_S
    stats: bool = True
    direct: bool = False
    delivery_options: DeliveryOptions = DeliveryOptions()

    @classmethod
    def from_keys(cls, keys: Mapping[str, Any]) -> Self:
        """Settings from flat keys, as in a topology.

        Args:
            keys: Values or their text, by name; None is a key that is not given.

        Raises:
            msgspec.ValidationError: A value is of another type.
        """
        given = {key: value for key, value in keys.items() if value is not None}
        options = {key: given.pop(key) for key in DELIVERY_KEYS if key in given}
        backend = given.setdefault("backend", default_backend(given.get("url")))
        given.setdefault("delivery", default_delivery(backend))
        return msgspec.convert({**given, "delivery_options": options}, cls, strict=False)

    @classmethod
    def for_url(cls, url: str, options: BusOptions, environ: Mapping[str, str]) -> Self:
        """Settings for a URL, from keywords, or from `environ` where that is about this very bus.

        Raises:
            BusError: A variable holds what it cannot hold.
        """
        given = cls.from_keys({"url": url, "channel": options.get("channel")})
        if (url, given.channel) == (environ.get("PBUS_URL"), environ.get("PBUS_CHANNEL")):
            given = cls.from_env(environ)
        return given.updated(options)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Settings that `pbus up` gave to this program; the inverse of `to_env`.

        The queue of the worker named by PBUS_WORKER is declared.

        Raises:
            BusError: A variable holds what it cannot hold.
        """
        try:
            settings = cls.from_keys({key: environ.get(_variable(key)) or None for key in _KEYS})
        except msgspec.ValidationError as error:
            raise BusError(f"a PBUS_ variable of the environment is wrong: {error}") from None
        return settings.declaring(*filter(None, [environ.get("PBUS_WORKER")]))

    def to_env(self) -> dict[str, str]:
        """All settings as variables, the unset ones empty: an outer pbus may have set them."""
        return {_variable(key): _text(value) for key, value in self.to_keys().items()}

    def to_keys(self) -> dict[str, Any]:
        """All settings by flat keys; the inverse of `from_keys`."""
        options = self.delivery_options
        return {key: getattr(options if key in DELIVERY_KEYS else self, key) for key in _KEYS}

    def updated(self, options: BusOptions) -> Self:
        """These settings with some keywords over them.

        Another delivery drops the delivery options, and an empty key drops encryption.
        """
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        if "delivery" in given:
            given.setdefault("delivery_options", DeliveryOptions())
        if not given.get("key", self.key):
            given.setdefault("encrypt", False)
        return msgspec.structs.replace(self, **given)

    def options(self) -> BusOptions:
        """All settings as keywords."""
        return cast("BusOptions", {key: getattr(self, key) for key in BusOptions.__annotations__})

    def declaring(self, *names: str) -> Self:
        """These settings, with names whose queues outlive their processes."""
        options = msgspec.structs.replace(self.delivery_options, declared=frozenset(names))
        return msgspec.structs.replace(self, delivery_options=options)

    @property
    def is_stored(self) -> bool:
        """Whether the broker stores messages until they are handled."""
        return self.delivery == "at-least-once"

    @property
    def is_in_process(self) -> bool:
        """Whether all workers share one process, without a broker."""
        return self.backend == "memory"

    @property
    def is_open_to_all(self) -> bool:
        """Whether all who reach the broker can send, as far as the URL tells."""
        return self.url is not None and self.key is None and is_open_to_all(self.url)

    def __repr__(self) -> str:
        """Without password and key."""
        return f"BusSettings({self.channel!r}, url={mask_url(self.url or '')!r})"


def default_backend(url: str | None) -> Backend:
    """The backend of a URL; without one, or of an unknown scheme, that which pbus starts itself."""
    return BACKEND_OF_SCHEME.get(url_scheme(url or ""), "redis")


def default_delivery(backend: Backend) -> DeliveryMode:
    """The delivery of a backend where none is given."""
    return _DELIVERY_OF_BACKEND.get(backend, "at-most-once")


DELIVERY_KEYS = tuple(name for name in DeliveryOptions.__struct_fields__ if name != "declared")
_KEYS = (
    *(name for name in BusSettings.__struct_fields__ if name != "delivery_options"),
    *DELIVERY_KEYS,
)


def _variable(key: str) -> str:
    return f"PBUS_{key.upper()}"


def _text(value: str | float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
