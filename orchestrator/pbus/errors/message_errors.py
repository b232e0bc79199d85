"""Errors of messages: definition, encoding, decoding."""

from collections.abc import Sequence

from pbus.errors.base_error import PbusError

_SHOWN = 200  # characters of an expression


class MessageError(PbusError):
    """A message cannot be defined, encoded or decoded."""


class DuplicateTypeError(MessageError):
    """Two message (or frame) classes share one name, so the wire could not tell them apart.

    Attributes:
        file: Where both are defined, when one file was loaded under two module names.
    """

    def __init__(self, name: str, first: str, second: str, file: str | None = None) -> None:
        if file is None:
            problem, hint = "", "rename one of the two classes"
        else:
            problem = f": {file} was loaded twice"
            hint = (
                "import it by one name everywhere; where it is the program itself, move its message"
                " classes to a module of their own"
            )
        super().__init__(
            f"message type {name!r} is already defined by {first},"
            f" so {second} cannot define it{problem}",
            hint=hint,
        )
        self.name = name
        self.file = file


class MessageDefinitionError(MessageError):
    """A message class has a field whose type cannot be found or cannot travel."""

    def __init__(self, name: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"message type {name!r} cannot be used: {problem}", hint=hint)
        self.name = name


class MessageEncodeError(MessageError):
    """A field holds a value that the wire cannot carry unchanged."""

    def __init__(
        self, type_name: str, field: str, problem: str, *, hint: str | None = None
    ) -> None:
        super().__init__(f"{type_name}.{field} cannot be sent: {problem}", hint=hint)
        self.type_name = type_name
        self.field = field


class MessageTooLargeError(MessageEncodeError):
    """An encoded message is larger than the bus allows."""

    def __init__(self, type_name: str, size: int, limit: int, *, hint: str | None = None) -> None:
        MessageError.__init__(
            self,
            f"{type_name} is {size:,} bytes on the wire and the bus carries at most {limit:,}",
            hint=hint or "send it in parts or raise max_message_bytes",
        )
        self.type_name = type_name
        self.field = ""
        self.size = size
        self.limit = limit


class MessageDecodeError(MessageError):
    """Bytes from the channel are not a message of a known type."""

    def __init__(self, problem: str, *, type_name: str = "") -> None:
        what = f"a {type_name}" if type_name else "a message"
        super().__init__(f"{what} from the channel was refused: {problem}")
        self.type_name = type_name


class UnknownTypeError(MessageDecodeError):
    """A message is of a type that no module of this process defines."""

    def __init__(self, type_name: str) -> None:
        super().__init__("its type is unknown here", type_name=type_name)


class MessageRefusedError(MessageError):
    """No receiver accepts a message, so it was not sent."""

    def __init__(self, type_name: str, refusals: Sequence[str]) -> None:
        super().__init__(
            f"{type_name} was not sent, since it is refused by {'; by '.join(refusals)}"
        )
        self.type_name = type_name


class SealError(MessageDecodeError):
    """Bytes from the channel were not sealed with a key of this process."""


class OtherKeyError(SealError):
    """Bytes were written by a holder of a key of this process, who encrypted them with another one."""


class SourceError(MessageDecodeError):
    """A message has the name of a worker of another process than its sender."""


class MessageInputError(MessageError):
    """Fields do not make a message of the type given.

    Attributes:
        type_name: The type.
        field: The field that is wrong; empty where the problem is with all of them.
    """

    def __init__(self, type_name: str, problem: str, *, field: str = "") -> None:
        super().__init__(problem)
        self.type_name = type_name
        self.field = field


class MatchExpressionError(MessageError):
    """A condition on messages is no JMESPath expression.

    Attributes:
        expression: As it was given.
        position: Of the problem in it, from 0.
    """

    def __init__(self, expression: str, position: int, problem: str) -> None:
        shown = expression if len(expression) <= _SHOWN else f"{expression[:_SHOWN]}…"
        super().__init__(
            f"{shown!r} is no JMESPath expression: {problem}, at character {position + 1}",
            hint="""for example "data.text == 'hello'" or "size_bytes > `1000` && contains(type, 'Note')\"""",
        )
        self.expression = expression
        self.position = position
