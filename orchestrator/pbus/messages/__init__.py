"""The catalogue of bus messages: frozen values without behaviour."""

from pbus.messages.control_messages import STATES_ADDRESS as STATES_ADDRESS
from pbus.messages.control_messages import TRACES_ADDRESS as TRACES_ADDRESS
from pbus.messages.control_messages import BusControlRequestMessage as BusControlRequestMessage
from pbus.messages.control_messages import BusControlResponseMessage as BusControlResponseMessage
from pbus.messages.control_messages import BusPlanRequestMessage as BusPlanRequestMessage
from pbus.messages.control_messages import BusPlanResponseMessage as BusPlanResponseMessage
from pbus.messages.control_messages import BusTraceMessage as BusTraceMessage
from pbus.messages.control_messages import BusWorkerStateMessage as BusWorkerStateMessage
from pbus.messages.control_messages import ControlAction as ControlAction
from pbus.messages.control_messages import ControlOutcome as ControlOutcome
from pbus.messages.job_messages import BusJobCancelMessage as BusJobCancelMessage
from pbus.messages.job_messages import BusJobCreditMessage as BusJobCreditMessage
from pbus.messages.job_messages import BusJobCreditRequestMessage as BusJobCreditRequestMessage
from pbus.messages.job_messages import BusJobMessage as BusJobMessage
from pbus.messages.job_messages import BusJobRequestMessage as BusJobRequestMessage
from pbus.messages.job_messages import BusJobRequestUrgentMessage as BusJobRequestUrgentMessage
from pbus.messages.job_messages import BusJobResponseMessage as BusJobResponseMessage
from pbus.messages.job_messages import BusJobResponseUrgentMessage as BusJobResponseUrgentMessage
from pbus.messages.job_messages import BusJobStreamDataMessage as BusJobStreamDataMessage
from pbus.messages.job_messages import BusJobStreamEndMessage as BusJobStreamEndMessage
from pbus.messages.job_messages import BusJobStreamStartMessage as BusJobStreamStartMessage
from pbus.messages.job_messages import BusJobUpdateMessage as BusJobUpdateMessage
from pbus.messages.job_messages import BusJobUpdateRequestMessage as BusJobUpdateRequestMessage
from pbus.messages.job_messages import BusJobUpdateUrgentMessage as BusJobUpdateUrgentMessage
from pbus.messages.lifecycle_messages import BusActivateWorkerMessage as BusActivateWorkerMessage
from pbus.messages.lifecycle_messages import BusAddWorkerMessage as BusAddWorkerMessage
from pbus.messages.lifecycle_messages import BusCancelMessage as BusCancelMessage
from pbus.messages.lifecycle_messages import BusCancelWorkerMessage as BusCancelWorkerMessage
from pbus.messages.lifecycle_messages import (
    BusDeactivateWorkerMessage as BusDeactivateWorkerMessage,
)
from pbus.messages.lifecycle_messages import BusEndMessage as BusEndMessage
from pbus.messages.lifecycle_messages import BusEndWorkerMessage as BusEndWorkerMessage
from pbus.messages.lifecycle_messages import BusMessagesLostMessage as BusMessagesLostMessage
from pbus.messages.lifecycle_messages import BusWorkerErrorMessage as BusWorkerErrorMessage
from pbus.messages.lifecycle_messages import (
    BusWorkerLocalErrorMessage as BusWorkerLocalErrorMessage,
)
from pbus.messages.lifecycle_messages import BusWorkerReadyMessage as BusWorkerReadyMessage
from pbus.messages.lifecycle_messages import BusWorkerRegistryMessage as BusWorkerRegistryMessage
from pbus.messages.lifecycle_messages import WorkerRegistryEntry as WorkerRegistryEntry
from pbus.messages.message_base import BusDataMessage as BusDataMessage
from pbus.messages.message_base import BusFrameMessage as BusFrameMessage
from pbus.messages.message_base import BusLocalMessage as BusLocalMessage
from pbus.messages.message_base import BusMessage as BusMessage
from pbus.messages.message_base import BusSystemMessage as BusSystemMessage
from pbus.messages.message_base import Category as Category
from pbus.messages.message_base import JobStatus as JobStatus
from pbus.messages.message_base import Lane as Lane
from pbus.messages.message_base import message_type as message_type
from pbus.messages.message_base import message_types as message_types
from pbus.messages.opaque_messages import BusOpaqueMessage as BusOpaqueMessage
from pbus.messages.opaque_messages import BusOpaqueSystemMessage as BusOpaqueSystemMessage
