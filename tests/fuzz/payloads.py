"""What is thrown at a project: real payloads, mutated, half of them under the seal of their sample."""

from collections.abc import Sequence

from fuzz.mutation import Mutator
from fuzz.sealing import Sample, Sealer


class Payloads:
    """Makes payloads; the same for the same seed and samples.

    Args:
        seed: Of all choices.
        sealer: Of the project.
        samples: Real ones.

    Attributes:
        mutator: Where all choices are made.
        sealed: How many were sealed.
    """

    def __init__(self, seed: int, sealer: Sealer, samples: Sequence[Sample]) -> None:
        self.mutator = Mutator(seed, [sample.plain for sample in samples])
        self.sealed = 0
        self._sealer = sealer
        self._samples = samples

    def one(self, at: bytes = b"") -> bytes:
        """The next one; at: the field, key or queue that it is for."""
        random = self.mutator.random
        sample = random.choice(self._samples)
        if random.random() < 0.5:
            data = self._sealer.sealed(sample, self.mutator.mutate(sample.plain), at)
            if data is not None:
                self.sealed += 1
                return data
        return self.mutator.mutate(sample.raw)
