"""Jobs as values and state: what is asked, who was asked, how it ended. No bus, no worker."""

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
