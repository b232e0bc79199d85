"""What the embedded servers have in common."""

import os
from collections.abc import Mapping

from pbus.process.system.groups import SERVER_TOKEN_VARIABLE

# LD_LIBRARY_PATH: where the C library is in an unusual place. XDG_: which home a process belongs to.
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")


def server_environ(token: str | None = None) -> dict[str, str]:
    """The environment of a server: what the launcher set for other programs has no say in it.

    Postgres reads PGDATA, PGPORT, PGTZ and more; a locale or time zone that the machine does not
    have keeps both servers from starting.

    Args:
        token: Marks the process as the project's, for the guard.
    """
    environ: Mapping[str, str] = os.environ
    inherited = {name: environ[name] for name in _INHERITED if name in environ}
    mark = {} if token is None else {SERVER_TOKEN_VARIABLE: token}
    return {"PATH": os.defpath, **inherited, "LC_ALL": "C", "TZ": "UTC", **mark}
