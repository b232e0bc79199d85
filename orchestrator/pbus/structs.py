"""How messages and frames are defined: frozen msgspec structs, found again by class name."""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import msgspec

from pbus.errors import DuplicateTypeError

# All that decoding bytes of any content may raise; msgspec lets UnicodeDecodeError through.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, TypeError)

T = TypeVar("T", bound=type)


class Catalogue:
    """A closed set of wire types by class name; a name is never resolved by importing."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Any]] = {}
        self._on_change: list[Callable[[], None]] = []

    def add(self, cls: type[Any]) -> None:
        """Register a class; the same class defined again (a reload) replaces itself.

        Raises:
            DuplicateTypeError: Another class has the name already.
        """
        held = self._classes.get(cls.__name__)
        if held is not None and _place(held) != _place(cls):
            raise DuplicateTypeError(cls.__name__, _place(held), _place(cls))
        self._classes[cls.__name__] = cls
        for callback in self._on_change:
            callback()

    def when_changed(self, callback: Callable[[], None]) -> None:
        """Call back after each class that is added."""
        self._on_change.append(callback)

    def get(self, name: str) -> type[Any] | None:
        """The class of that name, or None."""
        return self._classes.get(name)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._classes)


def _place(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class WireMeta(msgspec.StructMeta):
    """Gives every subclass what the wire needs, so that users need not repeat it.

    Frozen, keyword-only, tagged ``"type": ClassName``, defaults left out of the bytes.
    """

    def __new__(
        mcls: type["WireMeta"],
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        **config: Any,
    ) -> Any:
        """Create the struct class; explicit options win over the house's."""
        config = {
            "frozen": True,
            "kw_only": True,
            "omit_defaults": True,
            "tag": name,
            "tag_field": "type",
            **config,
        }
        return super().__new__(mcls, name, bases, namespace, **config)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class WireStruct(msgspec.Struct, metaclass=WireMeta, frozen=True):
    """Base of messages and frames."""

    catalogue: ClassVar[Catalogue]

    def __init_subclass__(cls) -> None:
        """Put the class into its catalogue."""
        super().__init_subclass__()
        if "catalogue" in cls.__dict__:  # the root of a family: not itself sent
            return
        cls.catalogue.add(cls)
