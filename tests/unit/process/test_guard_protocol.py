"""What the guard program understands, and what it removes."""

import os
import socket
from pathlib import Path

from pbus.process.system.guard import GuardState, remove


def test_orders_are_obeyed() -> None:
    """Each line adds or takes away what it says; unknown verbs of later versions do no harm."""
    state = GuardState()
    for line in (b"token t", b"group 5 12.5", b"group 6", b"group 7 1.0", b"forget 7", b"forget 8"):
        state.apply(line)
    state.apply(b"path " + os.fsencode("/a b/\n\udcff").hex().encode())
    state.apply(b"sing loudly")

    assert "t" == state.token
    assert {5: 12.5, 6: None} == state.groups
    assert [Path("/a b/\n\udcff")] == state.paths


def test_everything_is_removed(tmp_path: Path) -> None:
    """Files, sockets, folders with all in them; a link goes, what it points to stays."""
    folder = tmp_path / "run"
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "file").touch()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (folder / "link").symlink_to(kept)
    (tmp_path / "link").symlink_to(kept)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "s"))

    for path in (folder, tmp_path / "link", tmp_path / "never there"):
        remove(path)

    assert [kept] == list(tmp_path.iterdir())
    assert (kept / "file").exists()
