"""`make chaos`: ROUNDS of a SEED."""

import os
import random

from chaos.rounds import run_rounds

seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
rounds = int(os.environ.get("ROUNDS") or 200)
print(f"SEED={seed} ROUNDS={rounds}", flush=True)
run_rounds(seed, rounds, lambda line: print(line, flush=True))
print(f"{rounds} rounds, nothing lost and nothing left, seed {seed}")
