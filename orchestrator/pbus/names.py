"""Texts that name things on the bus, checked when written and when read."""

import re
from typing import Annotated

import msgspec

MAX_NAME_LENGTH = 255
WORKER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[0-9]+)?")  # x, or x.2 for a replica

# Types of fields that are read from the broker: msgspec checks them when it decodes.
WorkerName = Annotated[
    str, msgspec.Meta(pattern=rf"^{WORKER_NAME.pattern}\Z", max_length=MAX_NAME_LENGTH)
]
# One line without control characters; of jobs, hosts, runners, sessions.
Label = Annotated[
    str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z", max_length=MAX_NAME_LENGTH)
]
