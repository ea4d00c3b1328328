"""What the SAEs of a comparison share in a process: one language model, and residuals by hook."""

import gc
import uuid
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from lightning.pytorch import Callback, Trainer

from saerepgeo.data.concepts import activations_by_hook
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.experiment.compare.settings import Comparison
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.lm.frozen import FrozenLM

Row = dict[str, Any]
Data = TypeVar("Data", bound=ActivationDataModule)


@dataclass(frozen=True)
class Work:
    """What every SAE of one run is computed with; it can be sent to another process.

    Two are equal if they are of one run.
    """

    comparison: Comparison = field(compare=False)
    settings: dict[str, Any] = field(compare=False)
    """Of the data, all but the hook."""
    hook_names: tuple[str, ...]
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    def data(self, hook_name: str) -> "AtHook":
        """Return the data at a hook, on the device of the comparison."""
        return self._made(AtHook, hook_name)

    def of_all_hooks(self) -> ActivationDataModule:
        """Return the data at all hooks, which one pass of the language model reads."""
        return self._made(ActivationDataModule, list(self.hook_names))

    def _made(self, kind: type[Data], hook_name: str | list[str]) -> Data:
        data = kind(**self.settings, hook_name=hook_name, test_with_padding=False)
        data.trainer = self.trainer()  # which knows the device
        data.setup("test")
        return data

    def trainer(self, *callbacks: Callback) -> Trainer:
        """Return a trainer that tests and leaves no files."""
        return Trainer(
            accelerator=self.comparison.accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
        )


class AtHook(ActivationDataModule):
    """Data at one hook, and what the first SAE there has found of the residuals."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.of_all: ActivationDataModule | None = None
        self.forget()

    def forget(self) -> None:
        """Drop points, residuals and their rows."""
        self.clouds: dict[str, LabeledCloud] = {}
        self.residual_rows: list[Row] = []
        vars(self).pop("_heldout_text_points", None)

    def _load_lm(self, hook_name: str | tuple[str, ...]) -> FrozenLM:
        if self.of_all is None or hook_name != self.hook_names:
            return super()._load_lm(hook_name)
        of_all = self.of_all.lm
        of_all.kept_losses = {} if of_all.kept_losses is None else of_all.kept_losses
        return of_all.at(*hook_name)


class Shared:
    """Data at every hook of a run, behind one language model, loaded when first needed."""

    def __init__(self, work: Work) -> None:
        self.data = {name: work.data(name) for name in work.hook_names}
        if work.hook_names:
            self.of_all = work.of_all_hooks()
        for data in self.data.values():
            data.of_all = self.of_all

    def read_ahead(self) -> None:
        """Read concepts' prompts and held-out text at all hooks into the cache, a pass each.

        Inside `holding` they are in memory where the cache does not keep them.
        """
        data = self.of_all
        settings = [data.lm_settings._replace(hook_name=name) for name in data.hook_names]
        for concept in data.prompts:
            activations_by_hook(concept, settings, lambda: data.lm)
        for tokens in data.heldout_contexts().split(data.hparams["lm_batch_size"]):
            data.points_of(tokens, keep=bool(data.hparams["cache_stream"]))

    def at(self, hook_name: str) -> AtHook:
        """Return the data at a hook; what was kept of another is forgotten."""
        others = [data for name, data in self.data.items() if name != hook_name and data.clouds]
        for data in others:
            data.forget()
        if others:
            gc.collect()  # trainers and what they have run sit in cycles
        return self.data[hook_name]


@lru_cache(maxsize=1)
def shared(work: Work) -> Shared:
    """Return what the SAEs of a run share in this process."""
    return Shared(work)
