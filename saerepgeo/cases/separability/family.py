"""Many SAEs trained in one pass of the language model, over one or several hooks."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from saerepgeo.bounds import Text, check_settings
from saerepgeo.cases.separability.trained_sae import TrainedSAE, TrainingSettings
from saerepgeo.cases.separability.training_module import TrainingModule
from saerepgeo.sae.agreement import our_hook
from saerepgeo.sae.sae_source import SAESource

CHARTS = ("train/mse", "train/fvu", "train/lr", "val/mse", "val/fvu", "val/l0", "val/dead_fraction")
"""What TensorBoard shows of all SAEs in one chart, under "custom scalars"."""


@dataclass
class FamilySAE(SAESource, TrainingSettings):
    """An SAE of a family: where it comes from, and how it is trained.

    Attributes:
        name: what logs, checkpoints and the export call it: letters, digits, `_` and `-`.
        hook_name: the hook that it reads; by default the one of its files, or the data's only one.
    """

    name: Text | None = None
    hook_name: Text | None = None


class SAEFamilyModule(TrainingModule):
    """Train every SAE of a list on the same pass of the language model, as if it were alone.

    Each ends with the weights that `SeparabilityModule` gives it with these settings, at its hook
    (bit for bit on one thread). `data.hook_name` names all the hooks. One whose loss is no longer
    finite is left out, and the command ends with status 2; over several processes the run ends.

    Args:
        saes: the SAEs, each with a name and settings of its own.
    """

    def __init__(self, saes: list[FamilySAE]) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not saes:
            raise ValueError("`saes` must name SAEs to train, got none")
        for sae in saes:
            _check(sae)
        name, count = Counter(str(sae.name) for sae in saes).most_common(1)[0]
        if count > 1:
            raise ValueError(f"`saes` must have names of their own, got {name} {count} times")
        self.saes = nn.ModuleDict({str(sae.name): TrainedSAE(sae, sae) for sae in saes})

    @property
    def trained(self) -> Mapping[str, TrainedSAE]:
        """The SAEs by name."""
        return {name: cast(TrainedSAE, trained) for name, trained in self.saes.items()}

    def check(self, stage: str) -> list[str]:
        """Refuse SAEs that do not belong to the data, before any weights are read."""
        if getattr(stage, "value", stage) == "test":  # Lightning's is an enum
            raise ValueError(
                "`test` takes one SAE: give SeparabilityModule the folder of one that is exported"
            )
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            raise ValueError(
                "SAEFamilyModule trains whole SAEs in every process: set `trainer.strategy` to ddp"
            )
        remarks: list[str] = []
        for name, trained in self.trained.items():
            try:
                hook = self._hook_of(cast(FamilySAE, trained.source))
                remarks += trained.agree(stage, self._data, hook)
            except ValueError as error:
                raise ValueError(f"SAE {name}: {error}") from error
        unread = set(self._data.hook_names) - {x.hook_name for x in self.trained.values()}
        if unread:
            raise ValueError(
                f"`data.hook_name` must hold hooks that an SAE reads, got {min(unread)}, which "
                "none does: leave it out"
            )
        return remarks

    def _hook_of(self, sae: FamilySAE) -> str:
        hooks = self._data.hook_names
        own = (sae.read_config().get("metadata") or {}).get("hook_name")
        found = sae.hook_name or our_hook(own) or (hooks[0] if len(hooks) == 1 else None)
        if found not in hooks:
            raise ValueError(
                f"`hook_name` must be one of `data.hook_name`, {', '.join(hooks)}, got {found}"
            )
        return str(found)

    def configure_model(self) -> None:
        """Load the SAEs and make room for what a checkpoint restores."""
        for trained in self.trained.values():
            if not hasattr(trained, "sae"):
                sae = trained.source.build(trained.settings.seed)
                trained.place(sae, self._data.prompts)

    def on_fit_start(self) -> None:
        """Say who is left out already, and lay out TensorBoard's charts of all SAEs."""
        for name in self.left_out:
            rank_zero_info(f"SAE {name}: it was left out before this checkpoint, and stays so")
        charts = {key: ["Multiline", [f"^{name}/{key}$" for name in self.saes]] for key in CHARTS}
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger) and self.trainer.is_global_zero:
                writer: Any = logger.experiment
                writer.add_custom_scalars({"all SAEs": charts})


def _check(sae: FamilySAE) -> None:
    """Refuse settings that no SAE can have, with a ValueError that names it."""
    name = sae.name or ""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            "each of `saes` must have a `name` of letters, digits, _ and -, that is no word of "
            f"Python's modules, got {sae.name!r}"
        )
    check_settings(FamilySAE, vars(sae), prefix=f"saes.{sae.name}.")
    try:
        sae.check()
    except ValueError as error:
        raise ValueError(f"SAE {sae.name}: {error}") from error
