"""Batch: one sender that waits for the broker, many messages at once and one by one, without a reader."""

from msgspec.structs import asdict

from pbus.bench.bench_messages import BenchMessage
from pbus.bench.processes.bus_handle import ignore, running_worker
from pbus.bench.processes.control_pipe import ControlPipe
from pbus.bench.processes.process_pool import BenchProcesses
from pbus.bench.processes.roles import RoleConfig, Stopwatch, StoredResult
from pbus.bench.results import CaseResult, Check, Plan, Row, System, ratio

NAME = "batch"
_COUNT = 50_000
_AT_ONCE = 500
_SHARE_ONE_BY_ONE = 0.05  # of the messages: it would take twenty times as long
_TARGET = "receiver"
_BACKLOG = 10**9  # as much as the broker takes: what is measured is the sender
_AT_LEAST_XADD = 1.5  # times redis-py's pipelines
_AT_LEAST_PGMQ = 20.0  # times one by one

# Name, system, role, messages at once, share of the count.
_Variant = tuple[str, System, str, int, float]
_BATCH: _Variant = (f"{NAME}: {_AT_ONCE} at once", "pbus", "batch-send", _AT_ONCE, 1.0)
_SINGLE: _Variant = (f"{NAME}: one by one", "pbus", "batch-send", 1, _SHARE_ONE_BY_ONE)
_XADD: _Variant = (f"{NAME}: XADD, 100 at once", "redis-py", "redis-store", 100, 1.0)


async def measure(pool: BenchProcesses, plan: Plan) -> CaseResult:
    """Measure what is stored at least once, in turn; with the baseline plain XADD, too."""
    has_streams = plan.has_baseline and plan.baseline == "redis-py"
    variants = [_BATCH, _SINGLE, *([_XADD] if has_streams else [])]
    runs: list[list[StoredResult]] = [[] for _ in variants]
    for _ in range(plan.rounds):
        for (_, _, role, at_once, share), done in zip(variants, runs, strict=True):
            bus = pool.new_bus().updated({"delivery": "at-least-once"})
            config = RoleConfig(
                bus=bus,
                name="sender",
                targets=(_TARGET,),
                count=max(1, int(plan.count_or(_COUNT) * share)),
                size=plan.size,
                at_once=at_once,
            )
            async with pool.running((role, config)) as (sender,):
                sender.go()
                done.append(await sender.result(StoredResult))
    rows = tuple(_row(*variant[:2], done) for variant, done in zip(variants, runs, strict=True))
    return CaseResult(rows=rows, checks=_checks(rows, plan))


def _row(name: str, system: System, runs: list[StoredResult]) -> Row:
    sent = sum(run.count for run in runs)
    return Row(
        name=name,
        system=system,
        count=sent,
        messages_per_s=sent / sum(run.seconds for run in runs),
        sender_cpu_us=sum(run.cpu_s for run in runs) / sent * 1e6,
        lost=sent - sum(run.stored for run in runs),
    )


def _checks(rows: tuple[Row, ...], plan: Plan) -> tuple[Check, ...]:
    batch, single, *plain = (row.messages_per_s for row in rows)
    at_least = _AT_LEAST_PGMQ if plan.baseline == "pgmq" else None
    checks = [
        Check.of(f"{_AT_ONCE} at once / one by one", ratio(batch, single), at_least=at_least),
        Check.of(f"lost in {NAME}", sum(row.lost for row in rows), at_most=0),
    ]
    if plain:
        name = f"{_AT_ONCE} at once / redis-py, XADD unconfirmed"
        checks.insert(0, Check.of(name, ratio(batch, plain[0]), at_least=_AT_LEAST_XADD))
    return tuple(checks)


async def send(config: RoleConfig, control: ControlPipe) -> None:
    """Role: send to a queue without a consumer, so many at once."""
    text, target, step = "x" * config.size, config.targets[0], config.at_once
    async with running_worker(config, ignore) as (worker, bus):
        store = bus.queues
        assert store is not None  # noqa: S101 - the bus of this case
        limits = {"max_backlog": _BACKLOG, "max_bytes": _BACKLOG}
        await store.open(target, durable=True, shared=False, **limits)
        control.send_ready()
        await control.receive()
        watch = Stopwatch()
        for first in range(0, config.count, step):
            messages = [
                BenchMessage(source=config.name, target=target, number=number, text=text)
                for number in range(first, min(first + step, config.count))
            ]
            if step == 1:
                await worker.send_bus_message(messages[0])
            else:
                await worker.send_all(messages)
        sent = watch.sent(config.count)
        stored = sum(one.backlog for one in await store.stats() if one.name == target)
        await store.purge(target, remove=True)
        control.send(StoredResult(**asdict(sent), stored=stored))
