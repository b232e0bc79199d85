"""State for the next supervisor of a project; a disk that refuses it is no error."""

import os

import pytest

from pbus.process.project.recovery_log import RecoveryLog, StopTime


def test_unreleased_incarnations_are_found(tmp_path):
    """Incarnations that were started and not released are returned to the next supervisor."""
    before = RecoveryLog(tmp_path)
    for one in ("one", "two", "three"):
        before.note_started(one)
    before.note_released("two")

    assert ["one", "three"] == RecoveryLog(tmp_path).unreleased()


def test_supervisors_succeed_each_other(tmp_path):
    """Each is told the address of the one before it."""
    assert ["", "one", "two"] == [
        RecoveryLog(tmp_path).replace_supervisor(address) for address in ("one", "two", "three")
    ]


@pytest.mark.parametrize("problem", ["a folder in the way", "no folder"])
def test_refused_files_are_no_error(tmp_path, caplog, problem):
    """Everything goes on without the files; one warning is logged."""
    folder = tmp_path / "state"
    if problem == "a folder in the way":
        for name in ("incarnations", "queues", "stored_count", "supervisor"):
            (folder / name).mkdir(parents=True)
    recovery_log = RecoveryLog(folder)

    recovery_log.note_started("one")
    recovery_log.note_released("one")
    recovery_log.set_queues(["a"])
    recovery_log.set_stored_count(3)
    recovery_log.note_purged()

    assert "" == recovery_log.replace_supervisor("other")
    assert ([], [], 0) == (
        recovery_log.unreleased(),
        recovery_log.queues(),
        recovery_log.stored_count(),
    )
    assert 1 == caplog.text.count("the project's state cannot be written down")


def test_figures_come_back(tmp_path):
    """Queues, the number of stored messages and a requested purge outlive a supervisor."""
    RecoveryLog(tmp_path).set_queues(["b", "a"])
    RecoveryLog(tmp_path).set_stored_count(7)
    RecoveryLog(tmp_path).request_purge()
    after = RecoveryLog(tmp_path)

    assert (["a", "b"], 7, True) == (after.queues(), after.stored_count(), after.is_purge_requested)
    after.note_purged()
    assert (0, False) == (after.stored_count(), after.is_purge_requested)


def test_stop_timeout_is_read_once(tmp_path):
    """The time for jobs of `down` is for one supervisor and one stop."""
    recovery_log = RecoveryLog(tmp_path)
    assert recovery_log.take_stop_time() is None
    recovery_log.set_stop_time(os.getpid(), StopTime(12.5))
    assert [StopTime(12.5), None] == [recovery_log.take_stop_time(), recovery_log.take_stop_time()]
    recovery_log.set_stop_time(1, StopTime(12.5))
    assert recovery_log.take_stop_time() is None
    usual = StopTime(30.0, is_usual=True)
    recovery_log.set_stop_time(os.getpid(), usual)
    assert usual == recovery_log.take_stop_time()
    for text in ("half a", "", f"{os.getpid()}", f"{os.getpid()} x", f"{os.getpid()} 1 2 3 4"):
        (tmp_path / "stop_timeout").write_text(text)
        assert recovery_log.take_stop_time() in {None, StopTime(1.0)}
    assert not (tmp_path / "stop_timeout").exists()
