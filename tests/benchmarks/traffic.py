"""What processes send each other in a training step, as torch's profiler sees every collective."""

from collections import Counter
from math import prod
from typing import Any

from lightning.pytorch import Callback
from torch.profiler import ProfilerActivity, profile

ITEM_SIZES = {"float": 4, "double": 8, "long int": 8, "int": 4, "unsigned char": 1, "bool": 1}


class Traffic(Callback):
    """Record the payload of each kind of collective over `n_steps` steps from `first_step` on.

    DistributedDataParallel's own gradients and buffers are included. A ring all-reduce of B bytes
    makes each of R processes send 2·B·(R − 1)/R.

    Attributes:
        bytes_per_step: payload of this process by collective, e.g. `{"all_reduce": 123}`.
    """

    def __init__(self, first_step: int = 2, n_steps: int = 2) -> None:
        self.first_step, self.n_steps = first_step, n_steps
        self.bytes_per_step: dict[str, float] = {}
        self._profile: Any = None

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.first_step:
            self._profile = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
            self._profile.start()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self._profile is None or trainer.global_step < self.first_step + self.n_steps:
            return
        self._profile.stop()
        sizes: Counter[str] = Counter()
        for event in self._profile.events():
            if event.name.startswith("gloo:"):
                size = prod(event.input_shapes[0]) * ITEM_SIZES[event.input_dtypes[0]]
                sizes[event.name.removeprefix("gloo:")] += size
        self.bytes_per_step = {name: size / self.n_steps for name, size in sizes.items()}
        self._profile = None
