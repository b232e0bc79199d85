"""What a supervisor writes down for the next one; a disk that refuses it stops nobody."""

import os

import pytest

from pbus.process.project.recovery_log import RecoveryLog


def test_open_lives_are_inherited(tmp_path):
    """Lives that were begun and not ended are over for whoever comes next."""
    before = RecoveryLog(tmp_path)
    for life in ("one", "two", "three"):
        before.begin(life)
    before.end("two")

    assert ["one", "three"] == RecoveryLog(tmp_path).inherited()


def test_supervisors_succeed_each_other(tmp_path):
    """Each learns under which address the one before it spoke."""
    assert ["", "one", "two"] == [
        RecoveryLog(tmp_path).succeed(address) for address in ("one", "two", "three")
    ]


@pytest.mark.parametrize("obstacle", ["a folder in the way", "no folder"])
def test_refused_files_stop_nobody(tmp_path, caplog, obstacle):
    """Everything goes on without the files; that is said once."""
    folder = tmp_path / "state"
    if obstacle == "a folder in the way":
        for name in ("lives", "mailboxes", "kept", "supervisor"):
            (folder / name).mkdir(parents=True)
    ledger = RecoveryLog(folder)

    ledger.begin("one")
    ledger.end("one")
    ledger.keep_mailboxes(["a"])
    ledger.note_kept(3)
    ledger.note_purged()

    assert "" == ledger.succeed("other")
    assert ([], [], 0) == (ledger.inherited(), ledger.mailboxes(), ledger.kept())
    assert 1 == caplog.text.count("the project's state cannot be written down")


def test_figures_come_back(tmp_path):
    """Mailboxes, the number of kept messages and the wish to drop them outlive a supervisor."""
    RecoveryLog(tmp_path).keep_mailboxes(["b", "a"])
    RecoveryLog(tmp_path).note_kept(7)
    RecoveryLog(tmp_path).ask_for_purge()
    after = RecoveryLog(tmp_path)

    assert (["a", "b"], 7, True) == (after.mailboxes(), after.kept(), after.is_purge_asked)
    after.note_purged()
    assert (0, False) == (after.kept(), after.is_purge_asked)


def test_time_is_given_once(tmp_path):
    """What `down` gives the jobs is for the supervisor it means, and for one stop."""
    ledger = RecoveryLog(tmp_path)
    assert ledger.given_s() is None
    ledger.give(os.getpid(), 12.5)
    assert [12.5, None] == [ledger.given_s(), ledger.given_s()]
    ledger.give(1, 12.5)
    assert ledger.given_s() is None
    (tmp_path / "given").write_text("half a")
    assert ledger.given_s() is None
