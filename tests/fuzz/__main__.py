"""`make fuzz`: SEED, COUNT and SECONDS of all BROKERS together."""

import os
import random

from fuzz.project import BROKERS
from fuzz.runs import fuzz

_CHECKS = 3  # of a broker, beside the last

brokers = (os.environ.get("BROKERS") or ",".join(BROKERS)).split(",")
seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
count = int(os.environ.get("COUNT") or 1_000_000)
seconds = float(os.environ.get("SECONDS") or 600)
print(f"SEED={seed} COUNT={count} SECONDS={seconds:g} BROKERS={','.join(brokers)}", flush=True)
sent, took = 0, 0.0
for at, broker in enumerate(brokers):  # the slow one first: the others make up for it
    others = len(brokers) - at
    run = fuzz(
        broker,
        seed,
        count=-((sent - count) // others),
        seconds=(seconds - took) / others,
        checks=_CHECKS,
    )
    sent, took = sent + run.sent, took + run.seconds
    print(run, flush=True)
print(f"{sent:,} payloads in {took:.0f} s, seed {seed}")
