"""TracedBus: what a bus does where its messages are traced."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from msgspec.structs import force_setattr
from opentelemetry import context, trace
from opentelemetry.metrics import Meter
from opentelemetry.trace import Span, Status, StatusCode

from pbus.bus.base import WorkerBus
from pbus.bus.brokered import BrokeredBus
from pbus.bus.local import causes
from pbus.bus.local.lane_reader import LaneReader
from pbus.bus.local.mailbox import Mailbox
from pbus.bus.otel import otel_names as names
from pbus.bus.otel.message_spans import MessageSpans, current_traceparent
from pbus.bus.queues.pending_put import Receipt
from pbus.bus.queues.store import Settlement
from pbus.codec import Header, decode_header
from pbus.errors import MessageDecodeError, PbusError
from pbus.messages import BusMessage
from pbus.stats.edge_table import kind_of_address
from pbus.trace_context import parent_span_id

_EVERYONE: Final = "*"
_REMEMBERED: Final = 1_024  # roots of traces whose span was made
_LONGEST: Final = 1_024  # characters of an attribute


class TracedBus:
    """Makes spans and counts of what a bus sends, handles and settles.

    Args:
        bus: Not started, without subscribers.
        spans: Makes the spans.
        meter: Makes the metrics.
    """

    def __init__(self, bus: WorkerBus, spans: MessageSpans, meter: Meter) -> None:
        self._spans = spans
        self._roots: OrderedDict[str, None] = OrderedDict()
        self._sent = meter.create_counter(names.SENT, "{message}")
        self._consumed = meter.create_counter(names.CONSUMED, "{message}")
        self._operation_s = meter.create_histogram(names.OPERATION_DURATION, "s")
        self._process_s = meter.create_histogram(names.PROCESS_DURATION, "s")
        causes.ask_outside(current_traceparent)
        self._replace_methods(bus)

    def _replace_methods(self, bus: WorkerBus) -> None:
        """Have this one called; a bus that is not traced does not even ask whether it is."""
        send = bus.send
        bus.send = lambda message: self.send(send, message)  # type: ignore[method-assign]
        bus.begin_send = bus.send  # type: ignore[method-assign]
        enqueue = bus.enqueue
        bus.enqueue = lambda message, receipt: self.enqueue(enqueue, message, receipt)  # type: ignore[method-assign]
        bus._router.make_mailbox = self.make_mailbox  # noqa: SLF001 - not for users
        if isinstance(bus, BrokeredBus):
            bus.send_checked = self._checked(bus.send_checked)  # type: ignore[method-assign]
        if bus.queues is not None:
            settle = bus.queues.settle
            bus.queues.settle = lambda found: self.settle(settle, found)  # type: ignore[assignment,method-assign]

    def _checked(self, send: Callable[..., Awaitable[bool]]) -> Callable[..., Any]:
        async def send_checked(
            header: Header, fields: dict[str, Any], *, urgent: bool = False
        ) -> bool:
            if header.type in names.HOUSEKEEPING:
                return await send(header, fields, urgent=urgent)
            return await self._sending(header, lambda: send(header, fields, urgent=urgent))

        return send_checked

    async def send(
        self, send: Callable[[BusMessage], Awaitable[bool]], message: BusMessage
    ) -> bool:
        """Send a message within a span."""
        if type_of(message) in names.HOUSEKEEPING:
            return await send(message)
        _continue_trace(message)
        return await self._sending(message, lambda: send(message))

    def enqueue(
        self, enqueue: Callable[[BusMessage, Receipt], bool], message: BusMessage, receipt: Receipt
    ) -> bool:
        """Have a message of a batch stored; its span ends with the outcome."""
        if type_of(message) in names.HOUSEKEEPING:
            return enqueue(message, receipt)
        _continue_trace(message)
        try:
            is_taken = enqueue(message, receipt)
        except PbusError as error:
            self._begin(message)(error)
            raise
        if is_taken:
            end_span, on_end = self._begin(message), receipt.on_end

            def end(receipt: Receipt) -> None:
                end_span(receipt.error)
                on_end(receipt)

            receipt.on_end = end
        return is_taken

    async def _sending(self, message: Any, send: Callable[[], Awaitable[bool]]) -> bool:
        end_span = self._begin(message)
        try:
            is_taken = await send()
        except BaseException as error:
            end_span(error)
            raise
        end_span(None)
        return is_taken

    def _begin(self, message: Any) -> Callable[[BaseException | None], None]:
        """Begin the span of sending a message; returns what ends it, with an error if there is one."""
        attributes = attributes_of(message, names.SEND)
        if getattr(message, "job_name", None) is not None:
            self._make_root(message)
        began = time.perf_counter()
        labels = {**_labels(message), names.OPERATION: names.SEND}
        span = self._spans.sending(message, attributes)

        def end(error: BaseException | None) -> None:
            if error is not None:
                labels[names.ERROR_TYPE] = fail(span, error)
            span.end()
            self._sent.add(1, labels)
            self._operation_s.record(time.perf_counter() - began, labels)

        return end

    def _make_root(self, request: Any) -> None:
        """Make the span of a job that no handler asks for: the root of its trace."""
        root = parent_span_id(request)
        is_known = root is None or root in self._roots or causes.current_cause() is not None
        if is_known or request.traceparent == current_traceparent():
            return
        self._roots[str(root)] = None
        if len(self._roots) > _REMEMBERED:
            self._roots.popitem(last=False)
        self._spans.creating(request, attributes_of(request, names.CREATE)).end()

    def make_mailbox(self, *arguments: Any, **options: Any) -> Mailbox:
        """Make the mailbox of a subscriber, with a span around each handler."""
        return _TracedMailbox(self, *arguments, **options)

    async def process(
        self,
        deliver: Callable[[], Awaitable[BaseException | None]],
        receiver: str,
        message: BusMessage,
        attempt: int,
    ) -> BaseException | None:
        """Handle a message within a span.

        Args:
            deliver: Handles it.
            receiver: The name of its receiver.
            message: The message.
            attempt: From 1.

        Returns:
            What the handler raised, if it did.
        """
        attributes = attributes_of(message, names.PROCESS, receiver)
        labels = {**_labels(message), names.OPERATION: names.PROCESS}
        span = self._spans.processing(message, attempt, {**attributes, names.ATTEMPT: attempt})
        token = context.attach(trace.set_span_in_context(span))
        began = time.perf_counter()
        try:
            error = await deliver()
        except BaseException as raised:
            labels[names.ERROR_TYPE] = fail(span, raised)
            raise
        else:
            if error is not None:
                labels[names.ERROR_TYPE] = fail(span, error)
            return error
        finally:
            context.detach(token)
            span.end()
            self._consumed.add(1, labels)
            self._process_s.record(time.perf_counter() - began, labels)

    async def settle(
        self,
        settle: Callable[[Sequence[Settlement]], Awaitable[None]],
        settlements: Sequence[Settlement],
    ) -> None:
        """Settle stored messages, with a span for each."""
        began = time.time_ns()
        error: BaseException | None = None
        try:
            await settle(settlements)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._note_settled(settlements, began, error)

    def _note_settled(
        self, settlements: Sequence[Settlement], began_ns: int, error: BaseException | None
    ) -> None:
        for one in settlements:
            try:
                header = decode_header(one.message.body)
            except MessageDecodeError:
                continue
            if header.type in names.HOUSEKEEPING:
                continue
            attributes = attributes_of(header, one.how, one.message.queue)
            attempt = one.message.attempt
            span = self._spans.settling(header, began_ns, {**attributes, names.ATTEMPT: attempt})
            if error is not None:
                fail(span, error)
            span.end()


class _TracedMailbox(Mailbox):
    """A mailbox that has a span around each handler."""

    is_flat = False

    def __init__(self, traced: TracedBus, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._traced = traced

    async def _deliver(self, message: BusMessage, reader: LaneReader) -> BaseException | None:
        if type_of(message) in names.HOUSEKEEPING:
            return await super()._deliver(message, reader)
        deliver = super()._deliver
        attempt = getattr(reader.delivery, "attempt", 1)
        return await self._traced.process(
            lambda: deliver(message, reader), self.name, message, attempt
        )


def attributes_of(message: Any, operation: str, destination: str | None = None) -> dict[str, str]:
    """The attributes of a span of a message.

    Args:
        message: A message, or the header of one.
        operation: What is done.
        destination: Where it is, if not what the message was sent to.
    """
    found = {
        names.OPERATION: operation,
        names.DESTINATION: destination or message.target or _EVERYONE,
        names.MESSAGE_ID: message.id,
        names.MESSAGE_TYPE: type_of(message),
        names.SOURCE: message.source,
        names.CONVERSATION_ID: getattr(message, "job_id", None),
        names.JOB_NAME: getattr(message, "job_name", None),
        names.JOB_STATUS: getattr(message, "status", None),
    }
    return {key: _text(value) for key, value in found.items() if value is not None}


def type_of(message: Any) -> str:
    """The name of the type of a message, also where it is unknown here, or of a header's."""
    if not isinstance(message, BusMessage):
        return str(message.type)
    return str(getattr(message, "type_name", "")) if message.is_opaque else type(message).__name__


def _continue_trace(message: BusMessage) -> None:
    """Give a message the trace of its cause, or that of the span around it."""
    causes.inherit_trace(message)
    outer = None if message.traceparent is not None else current_traceparent()
    if outer is not None:
        force_setattr(message, "traceparent", outer)


def fail(span: Span, error: BaseException) -> str:
    """Note in a span what was raised; returns its type."""
    kind = type(error).__name__
    span.set_attribute(names.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, _text(str(error))))
    return kind


def _labels(message: Any) -> dict[str, str]:
    """Attributes of metrics, without ids."""
    target = _EVERYONE if message.target is None else kind_of_address(str(message.target))
    return {
        names.SYSTEM: names.SYSTEM_VALUE,
        names.DESTINATION: _text(target),
        names.MESSAGE_TYPE: _text(type_of(message)),
    }


def _text(value: object) -> str:
    """A text that can be encoded, cut: a wrong one would cost all spans that are sent with it."""
    return str(value)[:_LONGEST].encode(errors="replace").decode()
