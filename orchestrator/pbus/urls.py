"""URLs as they may be shown: without their secrets."""

import re

_USER_PASSWORD = re.compile(r"(?P<before>//[^/@?#]*?):[^@/?#]*@")
_QUERY_PASSWORD = re.compile(r"(?P<before>[?&](?:password|pwd|pass)=)[^&#]*", re.IGNORECASE)


def mask_url(url: str) -> str:
    """The URL with its password replaced by ``***``; never fails, whatever the text."""
    masked = _USER_PASSWORD.sub(r"\g<before>:***@", url)
    return _QUERY_PASSWORD.sub(r"\g<before>***", masked)
