"""The definition of messages and frames: frozen msgspec structs, registered by class name."""

import dataclasses
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar, dataclass_transform

import msgspec

from pbus.errors import DuplicateTypeError, MessageDecodeError, MessageDefinitionError
from pbus.names import MAX_NAME_LENGTH, WORKER_NAME
from pbus.routing_keys import CLEAN_KEY, MAX_KEY_BYTES
from pbus.trace_context import MAX_LENGTH

# All that decoding bytes of any content may raise; msgspec lets UnicodeDecodeError through.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, TypeError)

# Types of fields that are read from the broker: msgspec checks them when it decodes.
WorkerName = Annotated[
    str, msgspec.Meta(pattern=rf"^{WORKER_NAME.pattern}\Z", max_length=MAX_NAME_LENGTH)
]
# Of a message; its bytes are counted where it is sent.
RoutingKey = Annotated[str, msgspec.Meta(pattern=CLEAN_KEY, max_length=MAX_KEY_BYTES)]
# Of a message; its form is checked where it is used, and a wrong one counts as none.
TraceParent = Annotated[str, msgspec.Meta(max_length=MAX_LENGTH)]
# One line without control characters; of jobs, hosts, runners, sessions.
Label = Annotated[
    str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z", max_length=MAX_NAME_LENGTH)
]

_OWN = "pbus."
_USED_BY_PBUS = {
    "key": "chooses the replica that a message goes to",
    "traceparent": "tells the trace that a message belongs to",
}
_RESERVED = frozenset({"catalogue", "category", "is_local", "is_opaque", "is_stored", "lane"})

T = TypeVar("T", bound=type)


class Catalogue:
    """A closed set of wire types by class name; a name is never resolved by importing."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Any]] = {}
        self._on_change: list[Callable[[], None]] = []

    def add(self, cls: type[Any]) -> None:
        """Register a class; a class that is defined again (by a reload) replaces itself.

        Raises:
            DuplicateTypeError: Another class has the name already.
        """
        held = self._classes.get(cls.__name__)
        if held is not None and _place(held) != _place(cls):
            raise DuplicateTypeError(
                cls.__name__, _place(held), _place(cls), _shared_file(held, cls)
            )
        self._classes[cls.__name__] = cls
        for callback in self._on_change:
            callback()

    def discard(self, cls: type[Any]) -> None:
        """Remove a class that cannot be used."""
        if self._classes.get(cls.__name__) is cls:
            del self._classes[cls.__name__]

    def when_changed(self, callback: Callable[[], None]) -> None:
        """Call a function after each added class."""
        self._on_change.append(callback)

    def get(self, name: str) -> type[Any] | None:
        """The class of a name; None when it is unknown."""
        return self._classes.get(name)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._classes)


def _place(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _shared_file(first: type[Any], second: type[Any]) -> str | None:
    """The file that defines both, when it was loaded under two module names."""
    if first.__qualname__ != second.__qualname__:
        return None
    files = {_file_of(first), _file_of(second)}
    return files.pop() if len(files) == 1 else None


def _file_of(cls: type[Any]) -> str | None:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return None if file is None else os.path.realpath(file)


def _check_fields(cls: type[Any]) -> None:
    """Reject a class that cannot travel; types of fields may be defined later, until the first use."""
    problem = _problem_of(cls)
    if problem is not None:
        cls.catalogue.discard(cls)
        raise MessageDefinitionError(cls.__name__, problem)


def _problem_of(cls: type[Any]) -> str | None:
    for name in _RESERVED.intersection(cls.__struct_fields__):
        return f"{name!r} says how its messages travel; rename that field"
    for name, use in _USED_BY_PBUS.items():
        if name in _own_annotations(cls) and _inherits_field(cls, name):
            return f"{name!r} {use}; rename that field"
    if getattr(cls, "is_local", False):
        return None
    try:
        msgspec.json.Decoder(cls)
    except NameError:
        return None
    except TypeError as error:
        return f"{error}; change that type, or mix BusLocalMessage in where it need not travel"
    return None


def _default_of(type_name: str, name: str, value: Any) -> Any:
    """The default that `dataclasses.field()` gives, as msgspec takes it; UNSET where it gives none."""
    if not isinstance(value, dataclasses.Field):
        return value
    if not value.init:
        problem = f"{name!r} is no argument, so its value cannot travel"
        raise MessageDefinitionError(
            type_name, problem, hint="give it a default, without init=False"
        )
    if value.default_factory is not dataclasses.MISSING:
        return msgspec.field(default_factory=value.default_factory)
    return msgspec.UNSET if value.default is dataclasses.MISSING else value.default


def _own_annotations(cls: type[Any]) -> Mapping[str, Any]:
    try:
        return inspect.get_annotations(cls)
    except NameError:  # of a type that is defined later
        return {}


def _inherits_field(cls: type[Any], name: str) -> bool:
    return any(name in getattr(base, "__struct_fields__", ()) for base in cls.__bases__)


class WireMeta(msgspec.StructMeta):
    """Gives each subclass the struct options of the wire.

    Frozen, keyword-only, tagged ``"type": ClassName``, defaults left out of the bytes.
    """

    def __new__(
        mcls: type["WireMeta"],
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        **config: Any,
    ) -> Any:
        """Create the struct class; explicit options win over these defaults.

        Raises:
            MessageDefinitionError: A field has a name or a type that no field can have.
        """
        config = {
            "frozen": True,
            "kw_only": True,
            "omit_defaults": True,
            "tag": name,
            "tag_field": "type",
            **config,
        }
        fields = {key: _default_of(name, key, value) for key, value in namespace.items()}
        own = {key: value for key, value in fields.items() if value is not msgspec.UNSET}
        cls = super().__new__(mcls, name, bases, own, **config)
        if not cls.__module__.startswith(_OWN):
            _check_fields(cls)
        return cls

    def __setattr__(cls, name: str, value: Any) -> None:
        """Set an attribute of the class.

        Raises:
            MessageDefinitionError: `@dataclass` is applied to it.
        """
        if name == "__dataclass_params__":
            cls.catalogue.discard(cls)  # type: ignore[attr-defined]
            problem = "its class makes it frozen and keyword-only already"
            raise MessageDefinitionError(cls.__name__, problem, hint="drop @dataclass from it")
        super().__setattr__(name, value)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class WireStruct(msgspec.Struct, metaclass=WireMeta, frozen=True):
    """The base of messages and frames."""

    catalogue: ClassVar[Catalogue]

    def __init_subclass__(cls) -> None:
        """Register the class in its catalogue."""
        super().__init_subclass__()
        if "catalogue" in cls.__dict__:  # the root of a family: not itself sent
            return
        cls.catalogue.add(cls)


def is_packed(data: bytes) -> bool:
    """Whether bytes are MessagePack: no map or array of it begins as JSON text does."""
    return data[:1] >= b"\x80"


def own_fields(data: bytes, type_name: str) -> dict[str, Any]:
    """Decode the fields of a type that is not known here.

    Raises:
        MessageDecodeError: The data is no object.
    """
    try:
        kind = dict[str, Any]
        if is_packed(data):
            return msgspec.msgpack.decode(data, type=kind)
        return msgspec.json.decode(data, type=kind)
    except DECODE_ERRORS as error:
        raise MessageDecodeError(str(error), type_name=type_name) from error
