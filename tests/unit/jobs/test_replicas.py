"""Which replica of a group gets a job."""

from types import SimpleNamespace

from pbus.registry import Replicas, WorkerReadyData


def registry_of(*names, inactive=()):
    """A registry with the ready replicas of one group, or workers."""
    data = {name: WorkerReadyData(name, "runner", f"i-{name}") for name in names}

    def replicas(name):
        found = [data[name]] if name in data else []
        return found or [each for each in data.values() if each.worker_name.startswith(f"{name}.")]

    return SimpleNamespace(
        get=lambda name: (replicas(name) or [None])[0],
        ready=lambda name: [each for each in replicas(name) if each.worker_name not in inactive],
        ready_names=lambda: list(names),
    )


def choices(replicas, name, count):
    return [replicas.choose(name).worker_name for _ in range(count)]


def test_replicas_take_turns():
    """With equal work, replicas are chosen in turn."""
    replicas = Replicas(registry_of("x.1", "x.2", "x.3"))
    assert ["x.1", "x.2", "x.3", "x.1"] == choices(replicas, "x", 4)


def test_idle_replica_is_chosen():
    """Fewest open jobs first."""
    replicas = Replicas(registry_of("x.1", "x.2"))
    replicas.job_started("x.2")
    replicas.job_started("x.2")
    replicas.job_started("x.1")
    assert ["x.1", "x.1"] == choices(replicas, "x", 2)
    replicas.job_ended("x.2")
    replicas.job_ended("x.2")
    assert ["x.2"] == choices(replicas, "x", 1)


def test_inactive_replicas_come_last():
    """Inactive replicas are passed over, unless there is no other."""
    replicas = Replicas(registry_of("x.1", "x.2", inactive={"x.1"}))
    assert ["x.2", "x.2"] == choices(replicas, "x", 2)
    inactive = Replicas(registry_of("x.1", inactive={"x.1"}))
    assert ["x.1"] == choices(inactive, "x", 1)


def test_group_is_all_its_replicas():
    """A group's name stands for all replicas, a worker's for itself, an unknown one for none."""
    replicas = Replicas(registry_of("x.1", "x.2", "y"))
    assert (["x.1", "x.2"], ["y"], []) == tuple(map(replicas.all_of, ("x", "y", "z")))
    assert replicas.choose("z") is None
