"""The wire specs of message and frame classes: decoders, and fields that need checks."""

import enum
import re
import typing
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from pbus.errors import MessageDefinitionError, UnknownTypeError
from pbus.frames import Frame
from pbus.structs import WireStruct, is_packed


class _FrameTag(msgspec.Struct, frozen=True):
    """The type of an encoded frame."""

    type: str


_frame_tag_decoder = msgspec.json.Decoder(_FrameTag)
_packed_frame_tag_decoder = msgspec.msgpack.Decoder(_FrameTag)


ReadFrame = Callable[[bytes, str], Frame]


def _decode_frame(raw: bytes, read_unknown: ReadFrame | None) -> Frame:
    """Decode a frame by its own type, as the second step for a message that carries one."""
    decoder = _packed_frame_tag_decoder if is_packed(raw) else _frame_tag_decoder
    name = decoder.decode(raw).type
    cls = Frame.catalogue.get(name)
    if cls is None:
        if read_unknown is not None:
            return read_unknown(raw, name)
        raise UnknownTypeError(name)
    frame: Frame = spec_of(cls).decode(raw)
    return frame


class WireSpec:
    """The fields and decoders of one class, found on first use.

    Attributes:
        cls: The class.
        free_fields: Fields of any type, whose values are checked.
        frame_fields: Fields with frames, which are decoded separately.
        has_numbers: Whether a typed field may hold a float.
        is_plain: Whether no field is checked.
        wire: The class as it travels, with undecoded frames.
        json_decoder: Decodes a message in JSON.
    """

    def __init__(self, cls: type[WireStruct]) -> None:
        hints = {field.name: field.type for field in msgspec.structs.fields(cls)}
        self.cls = cls
        self.free_fields = tuple(name for name, hint in hints.items() if _is_free(hint))
        self.frame_fields = tuple(name for name, hint in hints.items() if _is_frame(hint))
        typed = hints.keys() - {"time", *self.free_fields}
        self.has_numbers = any(_may_be_float(hints[name]) for name in typed)
        self.is_plain = not any((self.free_fields, self.frame_fields, _is_opaque(cls)))
        self.wire: type[Any] = self._twin() if self.frame_fields else cls
        self._decode_json = msgspec.json.Decoder(self.wire).decode
        self.json_decoder = self.decode if self.frame_fields else self._decode_json
        self._decode_packed = msgspec.msgpack.Decoder(self.wire).decode

    def _twin(self) -> type[Any]:
        """Make the same struct with undecoded frames."""
        fields = []
        for field in msgspec.structs.fields(self.cls):
            hint = msgspec.Raw if field.name in self.frame_fields else field.type
            if field.default_factory is not msgspec.NODEFAULT:
                default = msgspec.field(default_factory=field.default_factory)
            else:
                default = field.default
            entry = (field.name, hint)
            fields.append(entry if default is msgspec.NODEFAULT else (*entry, default))
        return msgspec.defstruct(
            self.cls.__name__, fields, tag_field="type", tag=self.cls.__name__, kw_only=True,
            omit_defaults=True,
        )  # fmt: skip

    def decode(self, data: bytes, *, read_frame: ReadFrame | None = None) -> Any:
        """Decode a message or a frame of the class; raises what msgspec or the class raises.

        Args:
            data: The encoded value.
            read_frame: Makes the frame of a type that is not known here; None where that is an error.
        """
        value = self._decode_packed(data) if is_packed(data) else self._decode_json(data)
        if not self.frame_fields:
            return value
        values = msgspec.structs.asdict(value)
        for name in self.frame_fields:
            if isinstance(values[name], msgspec.Raw):
                values[name] = _decode_frame(bytes(values[name]), read_frame)
        return self.cls(**values)


SPECS: dict[type[WireStruct], WireSpec] = {}


def spec_of(cls: type[WireStruct]) -> WireSpec:
    """The spec of a class.

    Raises:
        MessageDefinitionError: The type of a field cannot be found, or cannot travel.
    """
    found = SPECS.get(cls)
    if found is None:
        try:
            found = SPECS[cls] = WireSpec(cls)
        except NameError as error:
            raise _unresolved(cls, error) from error
        except TypeError as error:
            raise MessageDefinitionError(cls.__name__, str(error)) from error
    return found


def _unresolved(cls: type[WireStruct], error: NameError) -> MessageDefinitionError:
    """Make the error that names the unresolvable annotation."""
    fields = (
        f"{owner.__name__}.{name}"
        for owner in cls.__mro__
        for name, hint in vars(owner).get("__annotations__", {}).items()
        if isinstance(hint, str) and re.search(rf"\b{re.escape(error.name or '')}\b", hint)
    )
    problem = f"the type of {next(fields, 'a field')} names {error.name!r}, which is not defined"
    where = f"in module {cls.__module__}"
    hint = f"define or import it {where} itself, not in a function nor under `if TYPE_CHECKING:`"
    return MessageDefinitionError(cls.__name__, problem, hint=hint)


def _is_free(hint: Any) -> bool:
    """Whether a field has any type, so that its values are checked."""
    return hint is Any or any(_is_free(inner) for inner in typing.get_args(hint))


def _is_opaque(cls: type[WireStruct]) -> bool:
    """Whether messages of a class are of another type on the wire."""
    return getattr(cls, "is_opaque", False) is True


_NO_FLOATS = (str, int, bytes, type(None), enum.Enum)


def _may_be_float(hint: Any) -> bool:
    """Whether a field of a type may hold a float; True when that is unknown."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return _may_be_float(inner[0])
    if inner:
        return typing.get_origin(hint) is not typing.Literal and any(map(_may_be_float, inner))
    return not (isinstance(hint, type) and issubclass(hint, _NO_FLOATS))


def _is_frame(hint: Any) -> bool:
    return (isinstance(hint, type) and issubclass(hint, Frame)) or any(
        _is_frame(inner) for inner in typing.get_args(hint)
    )
