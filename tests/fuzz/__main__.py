"""`make fuzz`: SEED, COUNT and SECONDS a broker, BROKERS."""

import os
import random

from fuzz.project import BROKERS
from fuzz.runs import fuzz

seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
count = int(os.environ.get("COUNT") or 1_000_000)
seconds = float(os.environ.get("SECONDS") or 600)
for broker in (os.environ.get("BROKERS") or ",".join(BROKERS)).split(","):
    print(f"{broker}: SEED={seed} COUNT={count} SECONDS={seconds:g}", flush=True)
    print(fuzz(broker, seed, count=count, seconds=seconds, checks=9), flush=True)
