"""MessageSpans: the spans of messages, whose ids follow from those of the messages.

No process tells another about spans. The span of handling a message has the id that messages sent by its
handler name as their parent; that of sending it has one that its receiver can work out.
"""

import hashlib
import threading
from collections.abc import Mapping
from typing import Protocol

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from pbus.bus.otel import otel_names as names
from pbus.stats.edge_table import kind_of_address
from pbus.trace_context import parent_span_id, span_id_of, trace_id_of

Attributes = Mapping[str, str | int]


class Sent(Protocol):
    """A message, or the header of one."""

    @property
    def id(self) -> str:
        """Unique."""

    @property
    def source(self) -> str:
        """Its sender."""

    @property
    def target(self) -> str | None:
        """Its receiver; None for everyone."""

    @property
    def traceparent(self) -> str | None:
        """As it was sent; None where it begins a trace."""


class PlannedIds(RandomIdGenerator):
    """Gives the next span of this thread the ids that were planned, others random ones."""

    def __init__(self) -> None:
        self._planned = threading.local()

    def plan(self, trace_id: str, span_id: str | None) -> None:
        """Plan the ids of the next span, which is to be started at once."""
        self._planned.trace_id = int(trace_id, 16)
        self._planned.span_id = None if span_id is None else int(span_id, 16)

    def generate_span_id(self) -> int:
        """The planned id, once."""
        found: int | None = getattr(self._planned, "span_id", None)
        self._planned.span_id = None
        return found or super().generate_span_id()

    def generate_trace_id(self) -> int:
        """The planned id, once; not asked for where there is a parent."""
        found: int | None = getattr(self._planned, "trace_id", None)
        self._planned.trace_id = None
        return found or super().generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Trace ids are hashes of messages' ids."""
        return False


class MessageSpans:
    """Starts spans of messages.

    Args:
        tracer: Makes them, with ids of `ids`.
        ids: See there.
    """

    def __init__(self, tracer: trace.Tracer, ids: PlannedIds) -> None:
        self._tracer = tracer
        self._ids = ids

    def sending(self, message: Sent, attributes: Attributes) -> Span:
        """The span of sending a message, whose parent is that of the handler that sends it."""
        own = span_id_of(message) if message.target is None else _sending_id(message)
        return self._start(
            names.SEND, SpanKind.PRODUCER, message, (own, parent_span_id(message)), attributes
        )

    def creating(self, message: Sent, attributes: Attributes) -> Span:
        """The span that a message names as its parent where no handler sends it."""
        own = parent_span_id(message)
        return self._start(names.CREATE, SpanKind.PRODUCER, message, (own, None), attributes)

    def processing(self, message: Sent, attempt: int, attributes: Attributes) -> Span:
        """The span of handling a message.

        Args:
            message: The message.
            attempt: Each but the first has an id of its own, and so has each receiver of a broadcast.
            attributes: Of the span.
        """
        if message.target is None:
            own, parent = None, span_id_of(message)
        else:
            own, parent = (span_id_of(message) if attempt == 1 else None), _sending_id(message)
        return self._start(names.PROCESS, SpanKind.CONSUMER, message, (own, parent), attributes)

    def settling(self, message: Sent, began_ns: int, attributes: Attributes) -> Span:
        """The span of settling a stored message."""
        parent = span_id_of(message)
        return self._start(
            names.SETTLE, SpanKind.CLIENT, message, (None, parent), attributes, began_ns=began_ns
        )

    def _start(
        self,
        operation: str,
        kind: SpanKind,
        message: Sent,
        ids: tuple[str | None, str | None],
        attributes: Attributes,
        *,
        began_ns: int | None = None,
    ) -> Span:
        trace_id, (own, parent) = trace_id_of(message), ids
        context = Context() if parent is None else _context(trace_id, parent)
        self._ids.plan(trace_id, own)
        return self._tracer.start_span(
            f"{operation} {kind_of_address(str(attributes[names.DESTINATION]))}",
            context=context,
            kind=kind,
            attributes={
                names.SYSTEM: names.SYSTEM_VALUE,
                names.OPERATION_TYPE: operation,
                **attributes,
            },
            start_time=began_ns,
            record_exception=False,
            set_status_on_exception=False,
        )


def current_traceparent() -> str | None:
    """The traceparent of the span that is current here; None where none is."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-01"


def _context(trace_id: str, span_id: str) -> Context:
    parent = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _sending_id(message: Sent) -> str:
    """The id of the span of sending a message to one receiver."""
    data = message.id.encode(errors="replace")
    return hashlib.blake2b(data, digest_size=8, person=b"send").hexdigest()
