"""One SAE in training: its loss, what it measured of its hook, its counters and figures."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from saerepgeo.bounds import Count, NotNegative, Positive, Share, ShareBelowOne
from saerepgeo.cases.separability.losses import (
    Direction,
    Regularizer,
    TransportPlans,
    item_distances,
    mean_squared_error,
    reduced_moments,
    separability_term,
)
from saerepgeo.cases.separability.optimization import parameter_groups, warmup_plateau_decay
from saerepgeo.cases.separability.validation import ValidationFigures
from saerepgeo.data.prompts import ConceptPrompts
from saerepgeo.data.statistics import ResidualStatistics
from saerepgeo.sae.agreement import check_agreement
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.parallel.collectives import all_reduce_sum
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import ActivationBatch, SAEOutput, SparseLatents, generator_for


@dataclass
class TrainingSettings:
    """How an SAE is trained.

    Attributes:
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

    regularizer: Regularizer = "aedp"
    direction: Direction = "increase"
    weight: NotNegative = 0.1
    target_scale: Positive = 1.2
    lr: Positive = 3e-4
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.999)
    warmup_steps: Count = 10
    decay_fraction: Share = 0.2
    dead_after: Count = 1_000_000
    shuffle_labels: bool = False
    seed: Count = 0


class TrainingStep(NamedTuple):
    """What an SAE makes of one batch."""

    loss: Tensor
    logged: dict[str, Tensor]
    numbers: Tensor
    """What the host has to know, `TrainedSAE.read`: mse, loss, how many latents are dead."""


class TrainedSAE(nn.Module):
    """loss = (mse + Σ the architecture's own terms)/σ² + λ·R.

    mse = mean ‖x̂ − x‖² over the batch; σ² = E‖x − x̄‖² of the residuals (`variance`), measured
    before the first step, so that λ has no units; R the regularizer on the effective latents of the
    labeled points.
    """

    sae: SAEModel
    variance: Tensor
    bias_scale: Tensor
    """Root mean square entry of what the SAE sees; biases have these units, and learn so fast."""
    silent_points: Tensor
    """`[d_sae]` points since each latent was last active."""
    target_distances: Tensor
    """`[item, item]` what gromov_wasserstein pulls the distances between centroids to."""

    hook_name: str | None = None
    """The hook whose points it is trained on; known from `agree` on."""

    def __init__(self, source: SAESource, settings: TrainingSettings) -> None:
        super().__init__()
        self.source, self.settings = source, settings
        self.transport_plans: TransportPlans = {}
        self._n_dead: int | None = None  # None: the next step finds out

    def agree(self, stage: str, data: Any, hook_name: str | list[str]) -> list[str]:
        """Take the hook; say what differs between the SAE and the data.

        Raises ValueError, before weights are read, where they do not belong together.
        """
        self.source.check_use(stage)
        told = dict(data.hparams) | {"hook_name": hook_name}
        remarks = check_agreement(self.source.read_config(), told, data.model_facts)
        self.hook_name = str(hook_name)  # one, for several are refused
        self.source.check_weights()
        return remarks

    def place(self, sae: SAEModel, prompts: ConceptPrompts) -> None:
        """Take the SAE, and make room for what a checkpoint restores."""
        self.sae = sae
        firsts, n_items = prompts.first_item_ids, prompts.n_items
        self._concepts = [range(f, f + len(c.items)) for f, c in zip(firsts, prompts, strict=True)]
        self.register_buffer("variance", torch.zeros(()))
        self.register_buffer("bias_scale", torch.ones(()))
        self.register_buffer("silent_points", torch.zeros(sae.d_sae, dtype=torch.long))
        self.register_buffer("target_distances", torch.zeros(n_items, n_items))
        self.figures = ValidationFigures(prompts, sae.d_sae)

    @property
    def is_measured(self) -> bool:
        """Whether `measure` has run, or a checkpoint holds what it found."""
        return bool(self.variance > 0)

    def measure(self, statistics: ResidualStatistics, labeled: ActivationBatch) -> None:
        """Measure what loss and rates need from the data."""
        self.variance.copy_(statistics.variance)
        if self.sae.normalization == "none":
            self.bias_scale.copy_((statistics.mean_square / self.sae.d_in).sqrt())
        device = self.variance.device
        if self.source.architecture is not None:
            self.sae.initialize_bias_(statistics.mean.to(device))
        points, labels, _ = (part.to(device) for part in labeled)
        distances = item_distances(self.sae, points, labels, len(self.target_distances))
        scale, is_up = self.settings.target_scale, self.settings.direction == "increase"
        self.target_distances.copy_(distances * (scale if is_up else 1 / scale))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what Adam moves, and how fast at most."""
        return parameter_groups(
            self.sae, self.settings.lr, self.settings.betas, float(self.bias_scale)
        )

    def rate_factor(self, n_steps: int | float) -> Any:
        """Return the factor of the rates by step, in a run of `n_steps`."""
        return warmup_plateau_decay(
            n_steps, self.settings.warmup_steps, self.settings.decay_fraction
        )

    def step(
        self, batch: ActivationBatch, n_labeled: int, number: int, world_size: int
    ) -> TrainingStep:
        """Return the loss of the step `number`, whose first points are labeled, and its parts."""
        known = {"dead_mask": self._dead_mask, "n_dead": self._n_dead, "step": number}
        out: SAEOutput = self.sae(batch.residuals, **known)
        mse = mean_squared_error(out.recons, batch.residuals)
        own = sum(out.losses.values(), torch.zeros_like(mse))
        term = self._regularizer(out, batch.labels[:n_labeled], number)
        loss = (mse + own) / self.variance + self.settings.weight * term.float()
        self._count_active(out.latents, len(batch.residuals) * world_size)
        logged = {"mse": mse, "separability": term, "loss": loss, "fvu": mse / self.variance}
        logged |= out.losses | {"dead_fraction": self._dead_mask.float().mean()}
        numbers = [x.detach().double() for x in (mse, loss, self._dead_mask.sum())]
        return TrainingStep(loss, logged, torch.stack(numbers))

    def read(self, numbers: list[float], number: int) -> str | None:
        """Take the numbers of a step; return which is not finite, None if all are."""
        *values, n_dead = numbers
        for name, value in zip(("mse", "loss"), values, strict=True):
            if not math.isfinite(value):
                return f"the {name} at step {number} is {value}"
        self._n_dead = int(n_dead)
        return None

    def before_step(self) -> None:
        """Take out of the decoder's gradient what the rescaling of its rows would undo."""
        if self.sae.has_constant_decoder_norm:
            self.sae.remove_parallel_gradient_()

    def after_step(self) -> None:
        """Bring the decoder rows back to the norm they had."""
        if self.sae.has_constant_decoder_norm:
            self.sae.normalize_decoder_()

    def validate(self, batch: ActivationBatch, part: int) -> None:
        """Add a batch of held-out text (0), prompts (1) or items (2) to the figures."""
        out: SAEOutput = self.sae(batch.residuals)
        if part == 0:
            self.figures.text.add(batch.residuals, out)
        else:
            effective = self.sae.effective_latents(out.latents)
            self.figures.points[str(part)].update(effective, batch.labels)

    def resume(self, plans: TransportPlans) -> None:
        """Take transport plans back: where a search starts decides where it ends."""
        self.transport_plans = {key: plan.cpu() for key, plan in plans.items()}
        self._n_dead = None

    @property
    def _dead_mask(self) -> Tensor:
        return self.silent_points > self.settings.dead_after

    def _regularizer(self, out: SAEOutput, labels: Tensor, number: int) -> Tensor:
        settings, device = self.settings, labels.device
        with torch.autocast(device.type, enabled=False):
            effective = self.sae.effective_latents(out.latents, rows=slice(len(labels)))
            if settings.shuffle_labels:
                generator = generator_for(settings.seed, "shuffle", number)
                order = torch.randperm(len(labels), generator=generator)
                labels = labels[order.to(device, non_blocking=True)]
            moments = reduced_moments(effective, labels, len(self.target_distances))
            kind, target = (settings.regularizer, settings.direction), self.target_distances
            return separability_term(moments, self._concepts, *kind, target, self.transport_plans)

    @torch.no_grad()
    def _count_active(self, latents: Tensor | SparseLatents, n_points: int) -> None:
        if isinstance(latents, SparseLatents):
            active = (latents.values > 0).long().flatten()
            counts = active.new_zeros(latents.d_sae)
            counts = counts.index_add(0, latents.indices.flatten(), active)
        else:
            counts = (latents > 0).sum(0)
        silent = self.silent_points + n_points
        self.silent_points.copy_(torch.where(all_reduce_sum(counts) > 0, 0, silent))


def measured(data: Any) -> dict[str, ResidualStatistics]:
    """Return by hook the statistics of the data's background text, and say what they are."""
    found: dict[str, ResidualStatistics] = data.statistics()
    for hook, statistics in found.items():
        if not bool(statistics.variance > 0):
            raise ValueError("the residuals of the background text do not vary; check `data.text`")
        error = statistics.standard_error / float(statistics.variance)
        rank_zero_info(
            f"variance of the residuals at {hook}: {float(statistics.variance):.5g}, standard "
            f"error {error:.1%} of it, from {statistics.n_contexts} contexts"
        )
    return found
