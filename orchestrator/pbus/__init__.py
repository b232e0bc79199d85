"""pbus: workers on a message bus, in one process or many, under one roof.

Everything a program needs is importable from here; a name is loaded when it is first used, so
`import pbus` needs no driver and is quick.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

    from pbus import client as client
    from pbus.bus import AsyncQueueBus as AsyncQueueBus
    from pbus.bus import BusSubscriber as BusSubscriber
    from pbus.bus import Tap as Tap
    from pbus.bus import TapMessage as TapMessage
    from pbus.bus import WorkerBus as WorkerBus
    from pbus.bus import connect as connect
    from pbus.bus.local.causes import trace_environ as trace_environ
    from pbus.bus.pgmq import PgmqBus as PgmqBus
    from pbus.bus.redis import RedisBus as RedisBus
    from pbus.errors import AmbiguousProjectError as AmbiguousProjectError
    from pbus.errors import BackendMissingError as BackendMissingError
    from pbus.errors import BatchError as BatchError
    from pbus.errors import BrokerGrantError as BrokerGrantError
    from pbus.errors import BrokerLoginError as BrokerLoginError
    from pbus.errors import BrokerRefusedError as BrokerRefusedError
    from pbus.errors import BrokerStartError as BrokerStartError
    from pbus.errors import BrokerVersionError as BrokerVersionError
    from pbus.errors import BusClosedError as BusClosedError
    from pbus.errors import BusError as BusError
    from pbus.errors import BusFullError as BusFullError
    from pbus.errors import BusLoopError as BusLoopError
    from pbus.errors import BusUnavailableError as BusUnavailableError
    from pbus.errors import BusUrlError as BusUrlError
    from pbus.errors import CallTimeoutError as CallTimeoutError
    from pbus.errors import ClientClosedError as ClientClosedError
    from pbus.errors import ControlError as ControlError
    from pbus.errors import ControlTimeoutError as ControlTimeoutError
    from pbus.errors import DeadLetterNotFoundError as DeadLetterNotFoundError
    from pbus.errors import DuplicateSubscriberError as DuplicateSubscriberError
    from pbus.errors import DuplicateTypeError as DuplicateTypeError
    from pbus.errors import DuplicateWorkerError as DuplicateWorkerError
    from pbus.errors import HandlerDefinitionError as HandlerDefinitionError
    from pbus.errors import HandlerExitError as HandlerExitError
    from pbus.errors import JobCancelledError as JobCancelledError
    from pbus.errors import JobError as JobError
    from pbus.errors import JobFailedError as JobFailedError
    from pbus.errors import JobGroupError as JobGroupError
    from pbus.errors import JobNotCancelledError as JobNotCancelledError
    from pbus.errors import JobNotDoneError as JobNotDoneError
    from pbus.errors import JobNotFoundError as JobNotFoundError
    from pbus.errors import JobStateError as JobStateError
    from pbus.errors import JobTimeoutError as JobTimeoutError
    from pbus.errors import JobWorkerLostError as JobWorkerLostError
    from pbus.errors import MessageDecodeError as MessageDecodeError
    from pbus.errors import MessageDefinitionError as MessageDefinitionError
    from pbus.errors import MessageEncodeError as MessageEncodeError
    from pbus.errors import MessageError as MessageError
    from pbus.errors import MessageInputError as MessageInputError
    from pbus.errors import MessageRefusedError as MessageRefusedError
    from pbus.errors import MessageTooLargeError as MessageTooLargeError
    from pbus.errors import NoStoredMessagesError as NoStoredMessagesError
    from pbus.errors import NothingRunningError as NothingRunningError
    from pbus.errors import NotReadyError as NotReadyError
    from pbus.errors import PbusError as PbusError
    from pbus.errors import PgmqMissingError as PgmqMissingError
    from pbus.errors import ProcessError as ProcessError
    from pbus.errors import ProjectRunningError as ProjectRunningError
    from pbus.errors import RequesterSilentError as RequesterSilentError
    from pbus.errors import RunnerStateError as RunnerStateError
    from pbus.errors import StacksUnavailableError as StacksUnavailableError
    from pbus.errors import StartupError as StartupError
    from pbus.errors import TopologyError as TopologyError
    from pbus.errors import UnknownEventError as UnknownEventError
    from pbus.errors import UnknownNameError as UnknownNameError
    from pbus.errors import UnseenProjectError as UnseenProjectError
    from pbus.errors import UnsupervisedWorkerError as UnsupervisedWorkerError
    from pbus.errors import WorkerError as WorkerError
    from pbus.errors import WorkerLoadError as WorkerLoadError
    from pbus.errors import WorkerNameError as WorkerNameError
    from pbus.errors import WorkerNotAttachedError as WorkerNotAttachedError
    from pbus.errors import WorkerNotFoundError as WorkerNotFoundError
    from pbus.frames import AudioRawFrame as AudioRawFrame
    from pbus.frames import CancelFrame as CancelFrame
    from pbus.frames import EndFrame as EndFrame
    from pbus.frames import Frame as Frame
    from pbus.frames import FrameDirection as FrameDirection
    from pbus.frames import OpaqueFrame as OpaqueFrame
    from pbus.frames import StartFrame as StartFrame
    from pbus.frames import TextFrame as TextFrame
    from pbus.handlers import PENDING as PENDING
    from pbus.handlers import job as job
    from pbus.handlers import worker_ready as worker_ready
    from pbus.jobs import JobContext as JobContext
    from pbus.jobs import JobEvent as JobEvent
    from pbus.jobs import JobGroup as JobGroup
    from pbus.jobs import JobGroupContext as JobGroupContext
    from pbus.jobs import JobGroupEvent as JobGroupEvent
    from pbus.jobs import JobGroupParams as JobGroupParams
    from pbus.jobs import JobGroupResponse as JobGroupResponse
    from pbus.jobs import JobParams as JobParams
    from pbus.jobs import JobResponse as JobResponse
    from pbus.messages import BusActivateWorkerMessage as BusActivateWorkerMessage
    from pbus.messages import BusAddWorkerMessage as BusAddWorkerMessage
    from pbus.messages import BusCancelMessage as BusCancelMessage
    from pbus.messages import BusCancelWorkerMessage as BusCancelWorkerMessage
    from pbus.messages import BusDataMessage as BusDataMessage
    from pbus.messages import BusDeactivateWorkerMessage as BusDeactivateWorkerMessage
    from pbus.messages import BusEndMessage as BusEndMessage
    from pbus.messages import BusEndWorkerMessage as BusEndWorkerMessage
    from pbus.messages import BusFrameMessage as BusFrameMessage
    from pbus.messages import BusJobCancelMessage as BusJobCancelMessage
    from pbus.messages import BusJobMessage as BusJobMessage
    from pbus.messages import BusJobRequestMessage as BusJobRequestMessage
    from pbus.messages import BusJobRequestUrgentMessage as BusJobRequestUrgentMessage
    from pbus.messages import BusJobResponseMessage as BusJobResponseMessage
    from pbus.messages import BusJobResponseUrgentMessage as BusJobResponseUrgentMessage
    from pbus.messages import BusJobStreamDataMessage as BusJobStreamDataMessage
    from pbus.messages import BusJobStreamEndMessage as BusJobStreamEndMessage
    from pbus.messages import BusJobStreamStartMessage as BusJobStreamStartMessage
    from pbus.messages import BusJobUpdateMessage as BusJobUpdateMessage
    from pbus.messages import BusJobUpdateRequestMessage as BusJobUpdateRequestMessage
    from pbus.messages import BusJobUpdateUrgentMessage as BusJobUpdateUrgentMessage
    from pbus.messages import BusLocalMessage as BusLocalMessage
    from pbus.messages import BusMessage as BusMessage
    from pbus.messages import BusMessagesLostMessage as BusMessagesLostMessage
    from pbus.messages import BusOpaqueMessage as BusOpaqueMessage
    from pbus.messages import BusOpaqueSystemMessage as BusOpaqueSystemMessage
    from pbus.messages import BusSystemMessage as BusSystemMessage
    from pbus.messages import BusWorkerErrorMessage as BusWorkerErrorMessage
    from pbus.messages import BusWorkerLocalErrorMessage as BusWorkerLocalErrorMessage
    from pbus.messages import BusWorkerReadyMessage as BusWorkerReadyMessage
    from pbus.messages import BusWorkerRegistryMessage as BusWorkerRegistryMessage
    from pbus.messages import JobStatus as JobStatus
    from pbus.messages import Lane as Lane
    from pbus.messages import WorkerRegistryEntry as WorkerRegistryEntry
    from pbus.messages import message_type as message_type
    from pbus.messages import message_types as message_types
    from pbus.registry import WorkerErrorData as WorkerErrorData
    from pbus.registry import WorkerLostData as WorkerLostData
    from pbus.registry import WorkerReadyData as WorkerReadyData
    from pbus.registry import WorkerRegistry as WorkerRegistry
    from pbus.runner import WorkerRunner as WorkerRunner
    from pbus.topology import Topology as Topology
    from pbus.topology import load_topology as load_topology
    from pbus.trace_context import in_trace as in_trace
    from pbus.workers.activation import WorkerActivationArgs as WorkerActivationArgs
    from pbus.workers.base_worker import BaseWorker as BaseWorker

_HOMES = {
    "pbus.bus": (
        "AsyncQueueBus",
        "BusSubscriber",
        "Tap",
        "TapMessage",
        "WorkerBus",
        "connect",
    ),
    "pbus.bus.pgmq": ("PgmqBus",),
    "pbus.bus.redis": ("RedisBus",),
    "pbus.errors": (
        "AmbiguousProjectError",
        "BackendMissingError",
        "BatchError",
        "BrokerGrantError",
        "BrokerLoginError",
        "BrokerRefusedError",
        "BrokerStartError",
        "BrokerVersionError",
        "BusClosedError",
        "BusError",
        "BusFullError",
        "BusLoopError",
        "BusUnavailableError",
        "BusUrlError",
        "CallTimeoutError",
        "ClientClosedError",
        "ControlError",
        "StacksUnavailableError",
        "ControlTimeoutError",
        "DeadLetterNotFoundError",
        "DuplicateSubscriberError",
        "DuplicateTypeError",
        "DuplicateWorkerError",
        "HandlerDefinitionError",
        "HandlerExitError",
        "JobCancelledError",
        "JobError",
        "JobFailedError",
        "JobGroupError",
        "JobNotCancelledError",
        "JobNotDoneError",
        "JobNotFoundError",
        "JobStateError",
        "JobTimeoutError",
        "JobWorkerLostError",
        "NoStoredMessagesError",
        "MessageDecodeError",
        "MessageDefinitionError",
        "MessageEncodeError",
        "MessageError",
        "MessageInputError",
        "MessageRefusedError",
        "MessageTooLargeError",
        "NotReadyError",
        "NothingRunningError",
        "PbusError",
        "PgmqMissingError",
        "ProcessError",
        "ProjectRunningError",
        "RequesterSilentError",
        "RunnerStateError",
        "StartupError",
        "TopologyError",
        "UnknownEventError",
        "UnknownNameError",
        "UnseenProjectError",
        "UnsupervisedWorkerError",
        "WorkerError",
        "WorkerLoadError",
        "WorkerNameError",
        "WorkerNotAttachedError",
        "WorkerNotFoundError",
    ),
    "pbus.frames": (
        "AudioRawFrame",
        "CancelFrame",
        "EndFrame",
        "Frame",
        "FrameDirection",
        "OpaqueFrame",
        "StartFrame",
        "TextFrame",
    ),
    "pbus.handlers": (
        "PENDING",
        "job",
        "worker_ready",
    ),
    "pbus.jobs": (
        "JobContext",
        "JobEvent",
        "JobGroup",
        "JobGroupContext",
        "JobGroupEvent",
        "JobGroupParams",
        "JobGroupResponse",
        "JobParams",
        "JobResponse",
    ),
    "pbus.messages": (
        "BusActivateWorkerMessage",
        "BusAddWorkerMessage",
        "BusCancelMessage",
        "BusCancelWorkerMessage",
        "BusDataMessage",
        "BusDeactivateWorkerMessage",
        "BusEndMessage",
        "BusEndWorkerMessage",
        "BusFrameMessage",
        "BusJobCancelMessage",
        "BusJobMessage",
        "BusJobRequestMessage",
        "BusJobRequestUrgentMessage",
        "BusJobResponseMessage",
        "BusJobResponseUrgentMessage",
        "BusJobStreamDataMessage",
        "BusJobStreamEndMessage",
        "BusJobStreamStartMessage",
        "BusJobUpdateMessage",
        "BusJobUpdateRequestMessage",
        "BusJobUpdateUrgentMessage",
        "BusLocalMessage",
        "BusMessage",
        "BusMessagesLostMessage",
        "BusOpaqueMessage",
        "BusOpaqueSystemMessage",
        "BusSystemMessage",
        "BusWorkerErrorMessage",
        "BusWorkerLocalErrorMessage",
        "BusWorkerReadyMessage",
        "BusWorkerRegistryMessage",
        "JobStatus",
        "Lane",
        "WorkerRegistryEntry",
        "message_type",
        "message_types",
    ),
    "pbus.registry": (
        "WorkerErrorData",
        "WorkerLostData",
        "WorkerReadyData",
        "WorkerRegistry",
    ),
    "pbus.runner": ("WorkerRunner",),
    "pbus.topology": (
        "Topology",
        "load_topology",
    ),
    "pbus.bus.local.causes": ("trace_environ",),
    "pbus.trace_context": ("in_trace",),
    "pbus.workers.base_worker": ("BaseWorker",),
    "pbus.workers.activation": ("WorkerActivationArgs",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = ("client",)

__all__ = sorted([*_HOME_OF, *_MODULES])  # noqa: PLE0605 - made from the table above


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name in _MODULES:
        return importlib.import_module(f"pbus.{name}")
    module = _HOME_OF.get(name)
    if module is None:
        raise _missing(name, sys._getframe(1))  # noqa: SLF001 - documented
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def _missing(name: str, caller: "FrameType") -> Exception:
    """The error for a name that is not public; `from pbus import` passes on an ImportError only."""
    import difflib
    import opcode

    near = difflib.get_close_matches(name, __all__, n=1, cutoff=0.8)
    hint = f"did you mean {near[0]!r}?" if near else "dir(pbus) lists what it has"
    is_import = caller.f_code.co_code[caller.f_lasti] == opcode.opmap["IMPORT_FROM"]
    if is_import and f"pbus.{name}" not in sys.modules:
        return ImportError(f"cannot import name {name!r} from 'pbus': {hint}", name="pbus")
    return AttributeError(f"module 'pbus' has no attribute {name!r}: {hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
