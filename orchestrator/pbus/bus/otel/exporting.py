"""The providers of spans and metrics of this process, which send them by OTLP over HTTP."""

import atexit
import functools
import os
import threading
from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from pbus.bus.base import WorkerBus
from pbus.bus.otel import otel_names as names
from pbus.bus.otel.message_spans import MessageSpans, PlannedIds
from pbus.bus.otel.traced_bus import TracedBus
from pbus.ids import new_id

_CLOSE_S: Final = 2.0  # at the end of a process, where the collector does not answer


def trace(bus: WorkerBus) -> None:
    """Have the messages of a bus traced.

    Args:
        bus: Not started, without subscribers.
    """
    spans, meters = _providers()
    ids = spans.id_generator
    assert isinstance(ids, PlannedIds)  # noqa: S101 - made below
    TracedBus(bus, MessageSpans(spans.get_tracer(names.SCOPE), ids), meters.get_meter(names.SCOPE))


def _resource(environ: Mapping[str, str]) -> Resource:
    """The resource; variables of OpenTelemetry win."""
    own = {
        names.SERVICE_NAME: environ.get("PBUS_WORKER") or names.SCOPE,
        names.SERVICE_INSTANCE: environ.get("PBUS_INCARNATION") or new_id(),
    }
    if project := environ.get("PBUS_PROJECT"):
        own[names.SERVICE_NAMESPACE] = project
    given = {
        key: value
        for key, value in Resource.create().attributes.items()
        if key != names.SERVICE_NAME or not str(value).startswith("unknown_service")
    }
    return Resource({**own, **given})


@functools.cache
def _providers() -> tuple[TracerProvider, MeterProvider]:
    """The providers of this process; at its end what they still have is sent, for a while."""
    resource = _resource(os.environ)
    spans = TracerProvider(resource=resource, id_generator=PlannedIds(), shutdown_on_exit=False)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    meters = MeterProvider(
        resource=resource,
        metric_readers=[PeriodicExportingMetricReader(OTLPMetricExporter())],
        shutdown_on_exit=False,
    )
    _close_at_exit(spans, meters)
    return spans, meters


def _close_at_exit(spans: TracerProvider, meters: MeterProvider) -> None:
    """Send the rest at the end of the process, in a thread that it leaves behind after _CLOSE_S."""
    is_over = threading.Event()

    def close() -> None:
        is_over.wait()
        spans.shutdown()
        meters.shutdown()

    # Started now: at the end of an interpreter no thread can be.
    closing = threading.Thread(target=close, name="pbus otel", daemon=True)
    closing.start()

    def leave() -> None:
        is_over.set()
        closing.join(_CLOSE_S)

    atexit.register(leave)
