"""Case 3 by training: fine-tune an SAE under a regularizer on the separability of concept items."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from saerepgeo.bounds import (
    Count,
    NotNegative,
    Positive,
    Share,
    ShareBelowOne,
    check_settings,
)
from saerepgeo.cases.analysis import model_name
from saerepgeo.cases.intervention.interventions import intervene
from saerepgeo.cases.separability.losses import Direction, Regularizer
from saerepgeo.cases.separability.trained_sae import TrainedSAE, TrainingSettings
from saerepgeo.cases.separability.training_module import TrainingModule
from saerepgeo.sae.parallel.tensor_parallel import check_run, shard
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import ConceptActivations, SAEOutput


class SeparabilityModule(TrainedSAE, TrainingModule):
    """loss = (mse + Σ the architecture's own terms)/σ² + λ·R, see `TrainedSAE`.

    λ = 0 trains an SAE in the ordinary way (`configs/pretrain.yaml`).

    Args:
        sae: the SAE to fine-tune, or to make.
        regularizer: aedp (average distance between centroids of items), fisher (scatter between
            over within items), debiased_aedp, debiased_fisher (less the noise of the centroids,
            which falls with more points an item), or gromov_wasserstein (distances between
            centroids pulled to `target_scale` times what they were; to `decrease` them,
            1/`target_scale`).
        direction: which way separability is pushed.
        weight: λ.
        target_scale: see `regularizer`.
        lr: peak learning rate of Adam.
        betas: of Adam.
        warmup_steps: steps of linear warm-up.
        decay_fraction: share of the run over which the rate falls linearly to 0, at its end.
        dead_after: a latent is dead once it has been silent for so many points.
        shuffle_labels: control: permute the items' labels among the labeled points of each step.
        seed: of a new SAE and of the shuffling.
    """

    def __init__(
        self,
        sae: SAESource,
        regularizer: Regularizer = "aedp",
        direction: Direction = "increase",
        weight: NotNegative = 0.1,
        target_scale: Positive = 1.2,
        lr: Positive = 3e-4,
        betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999),
        warmup_steps: Count = 10,
        decay_fraction: Share = 0.2,
        dead_after: Count = 1_000_000,
        shuffle_labels: bool = False,
        seed: Count = 0,
    ) -> None:
        given = dict(locals())
        check_settings(SeparabilityModule, given)
        own = {field.name: given[field.name] for field in fields(TrainingSettings)}
        super().__init__(sae, TrainingSettings(**own))
        sae.check()
        self.save_hyperparameters()

    @property
    def trained(self) -> Mapping[str, TrainedSAE]:
        """The only SAE, which has no name."""
        return {"": self}

    def check(self, stage: str) -> list[str]:
        """Refuse an SAE that does not belong to the data, before any weights are read."""
        return self.agree(stage, self._data, self._data.hparams["hook_name"])

    def configure_model(self) -> None:
        """Load the SAE and make room for what a checkpoint restores."""
        if hasattr(self, "sae"):
            return
        sae = self.source.build(self.settings.seed)
        if self.device_mesh is not None:
            check_run(self.trainer)
            sae = shard(sae, self.device_mesh)
        self.place(sae, self._data.prompts)

    def forward(self, residuals: Tensor) -> SAEOutput:
        """Return reconstructions and latents of residuals `[point, d_model]`."""
        return self.sae(residuals)

    def test_step(self, batch: ConceptActivations, batch_idx: int) -> dict[str, Any]:
        """Return, as `result`, case 3's interventions on the latents of one concept."""
        data, outputs = self._data, None
        name = model_name(data.hparams["lm"], data.hparams["hook_name"])
        with torch.inference_mode(False), torch.enable_grad():
            if self.sae.hook_name_out is not None:  # what a transcoder reconstructs
                where = data.hparams["test_with_padding"], self.sae.hook_name_out
                outputs = data.concept(batch.concept, *where).residuals.to(self.device)
            found = intervene(self.sae, batch, data.tokenizer.tokenizer, name, outputs=outputs)
            return {"result": found}
