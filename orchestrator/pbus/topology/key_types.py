"""The types of keys and values in a topology file, with their bounds."""

from typing import Annotated

from msgspec import Meta

from pbus.topology.name_rules import (
    NAME_PATTERN,
    REFERENCE_PATTERN,
    WORKER_PATTERN,
    suggest_name,
    suggest_reference,
)
from pbus.topology.parsing.sizes import SIZE_PATTERN

AsWritten = str | int | float | bool  # the text exactly as in the file

Name = Annotated[
    str,
    Meta(
        pattern=NAME_PATTERN,
        extra={
            "expected": "a name of at most 64 letters, digits, _ and - that begins with a letter"
            " or _ (. is kept for replicas)",
            "suggest": suggest_name,
        },
    ),
]
WorkerKey = Annotated[
    str,
    Meta(
        pattern=WORKER_PATTERN,
        extra={
            "expected": "a name of at most 64 characters, none of them * ? [ ] @ , / \\ $ ` and . (which"
            " is kept for replicas), that begins with no - or ~",
            "suggest": suggest_name,
        },
    ),
]
Reference = Annotated[
    str,
    Meta(
        pattern=REFERENCE_PATTERN, extra={"expected": "module:Class", "suggest": suggest_reference}
    ),
]
Module = Annotated[
    str, Meta(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$", extra={"expected": "the name of a module"})
]
Channel = Annotated[
    str,
    Meta(
        pattern=r"^[^\s*?\[\]{}\\]{1,128}$",
        extra={"expected": "1 to 128 characters without spaces, *, ?, [, ], {, } and backslashes"},
    ),
]
VariableName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$",
        extra={"expected": "the name of an environment variable"},
    ),
]
MessageBytes = Annotated[int, Meta(ge=1024, le=512 * 1024 * 1024)]
Backlog = Annotated[int, Meta(ge=1, le=10_000_000)]
Size = int | Annotated[str, Meta(pattern=SIZE_PATTERN)]
Attempts = Annotated[int, Meta(ge=1, le=1000)]
MAX_REPLICAS = 1000
Replicas = Annotated[int, Meta(ge=1, le=MAX_REPLICAS)]
Text = Annotated[str, Meta(min_length=1)]
ExitCode = Annotated[int, Meta(ge=0, le=255)]
EnvFileNames = Text | list[Text]
Variables = dict[VariableName, AsWritten | None]
