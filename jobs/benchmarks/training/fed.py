"""The product's trainer without its reader, for benchmarks of the step alone."""

from collections.abc import Iterable, Iterator

from training.loop.trainer import Trainer
from training.reading.batches import Batch


class FedTrainer(Trainer):
    """A Trainer that takes its batches from `batches`, once through in each epoch."""

    batches: Iterable[Batch]

    def _read(self, epoch: int, start: int) -> Iterator[tuple[Batch, list[int]]]:
        yield from ((batch, [len(batch.labels)]) for batch in self.batches)
