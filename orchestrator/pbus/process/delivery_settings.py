"""From what a topology says about delivery to what a bus is told."""

from collections.abc import Iterable

from pbus.bus.queues.consumer import DeliveryOptions
from pbus.topology.model import DeliverySpec


def delivery_options(delivery: DeliverySpec, declared: Iterable[str] = ()) -> DeliveryOptions:
    """How a bus treats stored messages.

    Args:
        delivery: As the topology says.
        declared: The names here whose mailboxes outlive their processes.
    """
    return DeliveryOptions(
        max_attempts=delivery.max_attempts,
        max_crash_attempts=delivery.max_crash_attempts,
        max_backlog=delivery.max_backlog,
        max_backlog_bytes=delivery.max_backlog_bytes,
        refuse_when_full=delivery.when_full == "refuse",
        declared=frozenset(declared),
    )
