"""Unix sockets in the abstract namespace, between processes of one user in one network namespace."""

import hashlib
import os
import socket
import struct
import sys

IS_SUPPORTED = sys.platform == "linux"  # others have no abstract names, nor SO_PEERCRED
_BACKLOG = 128
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


def socket_name(channel: str, incarnation: str) -> str:
    """The abstract name at which a process takes messages; of fixed length, since names are bounded."""
    digest = hashlib.blake2b(f"{channel}\0{incarnation}".encode(), digest_size=16).hexdigest()
    return f"\0pbus-{digest}"


def listen(name: str) -> socket.socket:
    """Listen at an abstract name, without blocking.

    Raises:
        OSError: The system does not let us.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)  # noqa: FBT003
        listener.bind(name)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def connect(name: str) -> socket.socket:
    """Connect to an abstract name, here and now.

    Raises:
        OSError: Nothing listens there in this namespace, or a process of another user does.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)  # noqa: FBT003
        connection.connect(name)
        if not is_own_user(connection):
            raise PermissionError("the socket belongs to another user")
    except OSError:
        connection.close()
        raise
    return connection


def is_own_user(connection: socket.socket) -> bool:
    """Whether the process at the other end runs under our user."""
    size = _CREDENTIALS.size
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.geteuid())
