"""Jobs: requests, answers and state on both sides."""

from pbus.jobs.group import JobGroup, JobGroupResponse, JobResponse
from pbus.jobs.handles import JobContext, JobGroupContext
from pbus.jobs.job_events import JobEvent, JobGroupEvent
from pbus.jobs.params import JobGroupOptions, JobGroupParams, JobOptions, JobParams

__all__ = [
    "JobContext",
    "JobEvent",
    "JobGroup",
    "JobGroupContext",
    "JobGroupEvent",
    "JobGroupOptions",
    "JobGroupParams",
    "JobGroupResponse",
    "JobOptions",
    "JobParams",
    "JobResponse",
]
