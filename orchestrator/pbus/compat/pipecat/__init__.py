"""Pipecat's workers on pbus: `PbusBus` in a program, or a sidecar that `pipecat: true` starts."""

from pbus.errors import BackendMissingError

try:
    from pbus.compat.pipecat.pbus_bus import PbusBus as PbusBus
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] in {"pipecat", "pydantic"}:
        raise BackendMissingError("Pipecat", "pipecat", "pipecat-ai>=1.8") from error
    raise
