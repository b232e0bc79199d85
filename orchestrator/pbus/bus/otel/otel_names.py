"""All names in spans and metrics: those of the semantic conventions for messaging, and own ones."""

from typing import Final

SCOPE: Final = "pbus"
SYSTEM_VALUE: Final = "pbus"

# Attributes.
SYSTEM: Final = "messaging.system"
DESTINATION: Final = "messaging.destination.name"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGE_ID: Final = "messaging.message.id"
CONVERSATION_ID: Final = "messaging.message.conversation_id"  # of a job
ERROR_TYPE: Final = "error.type"
MESSAGE_TYPE: Final = "pbus.message.type"
SOURCE: Final = "pbus.source"
JOB_NAME: Final = "pbus.job.name"
JOB_STATUS: Final = "pbus.job.status"
ATTEMPT: Final = "pbus.message.attempt"

# Operations.
CREATE: Final = "create"
SEND: Final = "send"
PROCESS: Final = "process"
SETTLE: Final = "settle"

# Metrics.
SENT: Final = "messaging.client.sent.messages"
CONSUMED: Final = "messaging.client.consumed.messages"
OPERATION_DURATION: Final = "messaging.client.operation.duration"
PROCESS_DURATION: Final = "messaging.process.duration"

# The resource.
SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_INSTANCE: Final = "service.instance.id"

# Messages between processes of pbus, of which no spans are made.
HOUSEKEEPING: Final = frozenset({
    "BusAcceptanceRequestMessage", "BusAcceptanceResponseMessage", "BusAddWorkerMessage",
    "BusControlRequestMessage", "BusControlResponseMessage", "BusJobCancelRequestMessage",
    "BusJobCancelResponseMessage", "BusJobCreditMessage", "BusJobCreditRequestMessage",
    "BusJobsRequestMessage", "BusJobsResponseMessage", "BusMessagesLostMessage",
    "BusPlanRequestMessage", "BusPlanResponseMessage", "BusProbeMessage", "BusTraceMessage",
    "BusWorkerReadyMessage", "BusWorkerRegistryMessage", "BusWorkerStateMessage",
})  # fmt: skip
