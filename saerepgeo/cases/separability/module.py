"""Case 3 by training: fine-tune an SAE under a regularizer on the separability of concept items."""

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_info
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
from saerepgeo.cases.separability.losses import (
    Direction,
    Regularizer,
    TransportPlans,
    item_distances,
    mean_squared_error,
    reduced_moments,
    separability_term,
)
from saerepgeo.cases.separability.optimization import adam, clip_gradients_, warmup_plateau_decay
from saerepgeo.cases.separability.validation import ValidationFigures
from saerepgeo.sae.agreement import check_agreement
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.parallel.collectives import all_reduce_sum
from saerepgeo.sae.parallel.tensor_parallel import check_run, shard
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import (
    ActivationBatch,
    ConceptActivations,
    SAEOutput,
    SparseLatents,
    generator_for,
)


class SeparabilityModule(LightningModule):
    """loss = (mse + Σ the architecture's own terms)/σ² + λ·R.

    mse = mean ‖x̂ − x‖² over the batch; σ² = E‖x − x̄‖² of the residuals (`variance`), measured
    before the first step, so that λ has no units; R the regularizer on the effective latents of the
    labeled points. λ = 0 trains an SAE in the ordinary way (`configs/pretrain.yaml`).

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

    sae: SAEModel
    variance: Tensor
    bias_scale: Tensor
    """Root mean square entry of what the SAE sees; biases have these units, and learn so fast."""
    silent_points: Tensor
    """`[d_sae]` points since each latent was last active."""
    target_distances: Tensor
    """`[item, item]` what gromov_wasserstein pulls the distances between centroids to."""

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
        check_settings(SeparabilityModule, locals())
        super().__init__()
        sae.check()
        self.save_hyperparameters()
        self.source = sae
        self._plans: TransportPlans = {}
        self._n_dead: int | None = None  # None: the next step finds out

    def check(self, stage: str) -> list[str]:
        """Refuse an SAE that does not belong to the data, before any weights are read."""
        self.source.check_use(stage)
        config, data = self.source.read_config(), self._data
        remarks = check_agreement(config, data.hparams, data.model_facts)
        self.source.check_weights()
        return remarks

    def setup(self, stage: str) -> None:
        """Check, and say what was noticed."""
        for remark in self.check(stage):
            rank_zero_info(remark)

    def configure_model(self) -> None:
        """Load the SAE and make room for what a checkpoint restores."""
        if hasattr(self, "sae"):
            return
        self.sae = self.source.build(self.hparams["seed"])
        if self.device_mesh is not None:
            check_run(self.trainer)
            self.sae = shard(self.sae, self.device_mesh)
        prompts = self._data.prompts
        firsts, n_items = prompts.first_item_ids, prompts.n_items
        self._concepts = [range(f, f + len(c.items)) for f, c in zip(firsts, prompts, strict=True)]
        self.register_buffer("variance", torch.zeros(()))
        self.register_buffer("bias_scale", torch.ones(()))
        self.register_buffer("silent_points", torch.zeros(self.sae.d_sae, dtype=torch.long))
        self.register_buffer("target_distances", torch.zeros(n_items, n_items))
        self.figures = ValidationFigures(prompts, self.sae.d_sae)

    def forward(self, residuals: Tensor) -> SAEOutput:
        """Return reconstructions and latents of residuals `[point, d_model]`."""
        return self.sae(residuals)

    def training_step(self, batch: ActivationBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch of points, and log its parts; ValueError if not finite."""
        known = {"dead_mask": self._dead_mask, "n_dead": self._n_dead, "step": self.global_step}
        out: SAEOutput = self.sae(batch.residuals, **known)
        mse = mean_squared_error(out.recons, batch.residuals)
        own = sum(out.losses.values(), torch.zeros_like(mse))
        term = self._regularizer(out, batch)
        loss = (mse + own) / self.variance + self.hparams["weight"] * term.float()
        self._count_active(out.latents, len(batch.residuals))
        self._read(mse, loss)
        shown = {"mse": mse, "separability": term}
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        others = {"loss": loss, "fvu": mse / self.variance, "lr": rate, **out.losses}
        others["dead_fraction"] = self._dead_mask.float().mean()
        self.log_dict({f"train/{name}": value for name, value in shown.items()}, prog_bar=True)
        self.log_dict({f"train/{name}": value for name, value in others.items()})
        return loss

    def validation_step(
        self, batch: ActivationBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Add a batch of held-out text (0), prompts (1) or items (2) to the figures."""
        out: SAEOutput = self.sae(batch.residuals)
        if dataloader_idx == 0:
            self.figures.text.add(batch.residuals, out)
        else:
            effective = self.sae.effective_latents(out.latents)
            self.figures.points[str(dataloader_idx)].update(effective, batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Log every figure of the validation and forget its points."""
        figures = self.figures.compute()
        if self.trainer.sanity_checking:  # Lightning drops what is logged before the first step
            for logger in self.loggers:
                logger.log_metrics({k: float(v) for k, v in figures.items()}, self.global_step)
        for name, value in figures.items():
            self.log(name, value, prog_bar=name in ("val/mse", "val/aedp"))
        self.figures.reset()

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

    def configure_optimizers(self) -> Any:
        """Return Adam, with warm-up, a plateau, and a linear decay at the end."""
        self._measure()  # a checkpoint's buffers are back by now, and the rates depend on them
        h = self.hparams
        optimizer = adam(self.sae, h["lr"], tuple(h["betas"]), float(self.bias_scale))
        n_steps = self.trainer.estimated_stepping_batches
        schedule = warmup_plateau_decay(optimizer, n_steps, h["warmup_steps"], h["decay_fraction"])
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Take out of the decoder's gradient what the rescaling of its rows would undo."""
        if self.sae.has_constant_decoder_norm:
            self.sae.remove_parallel_gradient_()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer is told; log the norm before clipping."""
        norm = clip_gradients_(self.sae, gradient_clip_val, gradient_clip_algorithm)
        if norm is not None:
            self.log("train/gradient_norm", norm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, then bring the decoder rows back to the norm they had."""
        super().optimizer_step(*args, **kwargs)
        if self.sae.has_constant_decoder_norm:
            self.sae.normalize_decoder_()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the transport plans: where a search starts decides where it ends."""
        checkpoint["transport_plans"] = dict(self._plans)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the transport plans back; a checkpoint of before they were kept has none."""
        plans = checkpoint.get("transport_plans", {})
        self._plans, self._n_dead = {k: plan.cpu() for k, plan in plans.items()}, None

    @property
    def _data(self) -> Any:
        return self.trainer.datamodule  # type: ignore[attr-defined]

    @property
    def _dead_mask(self) -> Tensor:
        return self.silent_points > self.hparams["dead_after"]

    def _read(self, mse: Tensor, loss: Tensor) -> None:
        """Ask the device, once a step, whether the loss is finite and how many latents are dead."""
        numbers = torch.stack([x.detach().double() for x in (mse, loss, self._dead_mask.sum())])
        *values, n_dead = numbers.tolist()
        for name, value in zip(("mse", "loss"), values, strict=True):
            if not math.isfinite(value):
                raise ValueError(
                    f"the {name} at step {self.global_step} is {value}; lower `lr` or `weight` and "
                    "go on from the last checkpoint, which is from before"
                )
        self._n_dead = int(n_dead)

    def _measure(self) -> None:
        """Measure what loss and rates need from the data, unless a checkpoint holds it."""
        if bool(self.variance > 0):
            return
        statistics = self._data.statistics()
        if not bool(statistics.variance > 0):
            raise ValueError("the residuals of the background text do not vary; check `data.text`")
        error = statistics.standard_error / float(statistics.variance)
        rank_zero_info(
            f"variance of the residuals: {float(statistics.variance):.5g}, standard error "
            f"{error:.1%} of it, from {statistics.n_contexts} contexts"
        )
        self.variance.copy_(statistics.variance)
        if self.sae.normalization == "none":
            self.bias_scale.copy_((statistics.mean_square / self.sae.d_in).sqrt())
        if self.source.architecture is not None:
            self.sae.initialize_bias_(statistics.mean.to(self.device))
        points, labels, _ = (part.to(self.device) for part in self._data.points.train)
        distances = item_distances(self.sae, points, labels, len(self.target_distances))
        scale = self.hparams["target_scale"]
        is_up = self.hparams["direction"] == "increase"
        self.target_distances.copy_(distances * (scale if is_up else 1 / scale))

    def _regularizer(self, out: SAEOutput, batch: ActivationBatch) -> Tensor:
        h, labeled = self.hparams, slice(self._data.n_labeled)
        with torch.autocast(self.device.type, enabled=False):
            effective = self.sae.effective_latents(out.latents, rows=labeled)
            labels = batch.labels[labeled]
            if h["shuffle_labels"]:
                generator = generator_for(h["seed"], "shuffle", self.global_step)
                order = torch.randperm(len(labels), generator=generator)
                labels = labels[order.to(labels.device, non_blocking=True)]
            moments = reduced_moments(effective, labels, len(self.target_distances))
            kind, target = (h["regularizer"], h["direction"]), self.target_distances
            return separability_term(moments, self._concepts, *kind, target, self._plans)

    @torch.no_grad()
    def _count_active(self, latents: Tensor | SparseLatents, n_points: int) -> None:
        if isinstance(latents, SparseLatents):
            active = (latents.values > 0).long().flatten()
            counts = active.new_zeros(latents.d_sae)
            counts = counts.index_add(0, latents.indices.flatten(), active)
        else:
            counts = (latents > 0).sum(0)
        silent = self.silent_points + n_points * self.trainer.world_size
        self.silent_points.copy_(torch.where(all_reduce_sum(counts) > 0, 0, silent))
