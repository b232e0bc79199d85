"""The rules of names of topologies and workers, and suggestions for invalid ones."""

import re

MAX_NAME_LENGTH = 64  # names become file names, with suffixes, on systems that allow 255 bytes
NAME_PATTERN = rf"^[A-Za-z_][A-Za-z0-9_-]{{0,{MAX_NAME_LENGTH - 1}}}$"
REFERENCE_PATTERN = r"^(?!.*\.py:)[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*$"

_REFUSED = r"\x00-\x1f\x7f-\x9f*?\[\]@,/\\.$`"  # . is kept for replicas
# Of a worker: as pbus.names has it, but short, as it becomes a file's name.
WORKER_PATTERN = (
    rf"^(?=.{{1,{MAX_NAME_LENGTH}}}$)[^\s~\-{_REFUSED}](?:(?:[^\s{_REFUSED}]| )*[^\s{_REFUSED}])?$"
)

_NAME = re.compile(NAME_PATTERN)
_REFERENCE = re.compile(REFERENCE_PATTERN)


def clean_name(text: str, default: str = "topology") -> str:
    """The nearest valid name: a folder ``my app (2)`` is the topology ``my-app-2``."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")
    if name[:1].isdigit():
        name = f"_{name}"
    return name[:MAX_NAME_LENGTH].rstrip("-") or default


def suggest_name(wrong: str) -> str | None:
    """A valid name close to a wrong one, or None."""
    name = clean_name(wrong, default="")
    return name if _NAME.fullmatch(name) else None


def suggest_reference(wrong: str) -> str | None:
    """``module:Class`` for a reference with a file name, a dot or a path instead of the colon."""
    module, _, name = wrong.partition(":")
    module = module.removeprefix("./").replace(".py", "").replace("/", ".")
    if not name:
        module, _, name = module.rpartition(".")
    reference = f"{module}:{name}"
    return reference if _REFERENCE.fullmatch(reference) else None
