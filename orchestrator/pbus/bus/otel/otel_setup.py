"""Whether messages are traced here, and where spans and metrics go: the variables of OpenTelemetry."""

import importlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pbus.bus.base import WorkerBus

logger = logging.getLogger(__name__)

_ENDPOINTS: Final = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)


def trace_if_configured(bus: "WorkerBus", environ: Mapping[str, str]) -> None:
    """Have the messages of a new bus traced, if an endpoint is given and the extra is installed.

    Args:
        bus: Not started, without subscribers.
        environ: Variables as the specification of OpenTelemetry has them.
    """
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if is_disabled or not any(environ.get(name) for name in _ENDPOINTS):
        return
    try:
        exporting = importlib.import_module("pbus.bus.otel.exporting")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        logger.debug("OpenTelemetry is configured, but pbus-orchestrator[otel] is not installed")
        return
    exporting.trace(bus)
