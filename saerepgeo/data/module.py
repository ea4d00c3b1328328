"""ActivationDataModule: owns the language model, the stream of its residuals, and its position."""

from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from saerepgeo.bounds import (
    AtMostHalf,
    ContextSize,
    Count,
    PositiveInt,
    Share,
    ShareBelowOne,
    Text,
    check_settings,
)
from saerepgeo.data.batches import Batches, OneHook
from saerepgeo.data.cache import keeps_stream
from saerepgeo.data.concepts import (
    ConceptPoints,
    Concepts,
    check_lengths,
    concept_activations,
    points_at,
    split_points,
)
from saerepgeo.data.lm_module import LMDataModule
from saerepgeo.data.prompts import ConceptPrompts, load_prompts
from saerepgeo.data.statistics import PointsByHook, ResidualStatistics
from saerepgeo.data.stream import ActivationStream, StreamPlan
from saerepgeo.lm.precision import Dtype, autocast_dtype
from saerepgeo.lm.sums import cache_root
from saerepgeo.types import BACKGROUND, ActivationBatch, ConceptActivations

_tell_once = cache(rank_zero_info)
"""A comparison or an experiment makes many data modules of one file."""


class ActivationDataModule(LMDataModule):
    """Stream residuals of a frozen language model: labeled concept points and background text.

    Training batch number `step` depends on (seed, step) alone: a resumed run and one on other
    devices see the same points. Validation gives the dataloaders `VALIDATION_LOADERS`, testing each
    concept's prompts whole, as `ConceptActivations`.

    A list of hooks is read in one pass of the model: training batches come by hook, `{hook_name:
    ActivationBatch}`, and validation gives its dataloaders hook after hook; each hook has the
    points of a run at that hook alone.

    Args:
        lm: hub id, local Hugging Face folder, GGUF file, or `smollm2-135m`.
        hook_name: TransformerLens name of the hook, or a list of them (`SAEFamilyModule`).
        lm_dtype: `float32`, `bfloat16` (autocast) or `auto` (bfloat16 where it is native).
        center_residuals: subtract each residual's mean over d_model (TransformerLens'
            `center_writing_weights`), for SAEs trained under it.
        prompts: a prompts file, `{concept: [prompt, …]}`; the shipped one by default. The items of
            a concept are its bare prompts, whatever its name.
        concepts: which of its concepts; None for all.
        text: background text: `sample`, files (.txt .jsonl .gz), or `hf:NAME[:config][:split]`.
        heldout_text: text for validation; by default every twentieth document of `text`.
        heldout_text_fraction: the share of documents so held out.
        heldout_items: share of each concept's items kept out of training altogether.
        heldout_prompts: share of the other items' prompts kept out of training.
        batch_size: points of a training step over all devices.
        concept_fraction: share of labeled points in a training batch.
        context_size: tokens of a context, BOS included.
        window_steps: steps whose background points are shuffled together.
        lm_batch_size: contexts of one LM call, at most.
        n_lanes: equal parts of a batch, computed independently: a multiple of the number of
            devices. Changing it changes the batches, changing the devices does not.
        validation_contexts: contexts of held-out text.
        n_workers: processes that tokenize ahead (needed only for slow text sources).
        cache_stream: keep streamed residuals on disk, 2·d_model bytes a point in bfloat16, for
            later runs over the same text; `auto`: if all steps' points take at most 1 GiB.
        test_with_padding: whether test batches hold the residuals of padding positions as well.
        seed: of everything random here.
    """

    def __init__(
        self,
        lm: Text = "smollm2-135m",
        hook_name: Text | list[Text] = "blocks.10.hook_resid_post",
        lm_dtype: Dtype = "auto",
        center_residuals: bool = False,
        prompts: str | None = None,
        concepts: list[str] | None = None,
        text: str | list[str] = "sample",
        heldout_text: str | list[str] | None = None,
        heldout_text_fraction: AtMostHalf = 0.05,
        heldout_items: ShareBelowOne = 0.2,
        heldout_prompts: ShareBelowOne = 0.25,
        batch_size: PositiveInt = 4096,
        concept_fraction: Share = 0.0625,
        context_size: ContextSize = 128,
        window_steps: PositiveInt = 8,
        lm_batch_size: PositiveInt = 32,
        n_lanes: PositiveInt = 8,
        validation_contexts: PositiveInt = 64,
        n_workers: Count = 0,
        cache_stream: bool | Literal["auto"] = "auto",
        test_with_padding: bool = True,
        seed: Count = 0,
    ) -> None:
        check_settings(ActivationDataModule, locals())
        super().__init__()
        self.save_hyperparameters()
        if not 0 < len(set(self.hook_names)) == len(self.hook_names):
            raise ValueError(f"`hook_name` must be a hook or different ones, got {hook_name}")
        self.step = 0
        self._stream: ActivationStream | None = None
        self._of_setup: str | None = None

    @cached_property
    def prompts(self) -> ConceptPrompts:
        """The concepts and their prompts, in the order of the concept ids."""
        path = self.hparams["prompts"]
        found = load_prompts(path, self.hparams["concepts"])
        if path is not None:
            _tell_once(f"{path}: {found.summary}")
        return found

    def prepare_data(self) -> None:
        """In one process check prompts and model, then tokenize to disk the text that will be read.

        The other processes find it there; where nothing can be kept each tokenizes for itself. It
        may be called again, or not at all: what is read and not there is tokenized then.
        """
        _ = self._keeps_stream
        if (n_positions := self.model_facts.n_positions) is not None:
            check_lengths(self.prompts, self.tokenizer, n_positions)
        super().prepare_data()
        if self._stage == "fit" and self._plan_of_one.background_per_lane:
            self.contexts("train")
        is_validated = self.trainer is not None and self.trainer.limit_val_batches != 0
        if is_validated and self._stage in ("fit", "validate"):
            self.contexts("heldout")

    @property
    def hparams_initial(self) -> Any:
        """What loggers show: the seed under a name of its own, for a module has one as well."""
        shown = super().hparams_initial
        if "seed" in shown:
            shown["data_seed"] = shown.pop("seed")
        return shown

    def setup(self, stage: str) -> None:
        """Check the prompts file and the plan before the model is loaded."""
        _ = self.prompts
        self._of_setup = stage
        if stage == "fit":
            _ = self._plan
        n_concepts = len(self.prompts.names)
        if stage == "test" and self._world_size > n_concepts:  # Lightning drops who has nothing
            raise ValueError(
                f"the number of devices must be at most that of the concepts, {n_concepts}, which "
                f"they share, got {self._world_size}: set `trainer.devices` to {n_concepts}"
            )

    def concept(
        self, name: str, with_padding: bool = False, hook_name: str | None = None
    ) -> ConceptActivations:
        """Return all prompts of the concept `name` with their residuals (cached on disk).

        `hook_name` reads another hook than this module's, e.g. the one that a transcoder writes;
        where nothing is cached the model is loaded once more for it.
        """
        settings, lm = self.lm_settings, lambda: self.lm
        if hook_name is not None:
            settings = settings._replace(hook_name=hook_name)
        if settings.hook_name not in self.hook_names:
            lm = partial(self._load_lm, settings.hook_name)
        return concept_activations(self.prompts[name], settings, lm, with_padding)

    @property
    def points(self) -> ConceptPoints:
        """The labeled points: training, held-out prompts, held-out items; of the first hook."""
        return self.points_by_hook[self.hook_names[0]]

    @cached_property
    def points_by_hook(self) -> dict[str, ConceptPoints]:
        """The labeled points at every hook."""
        h, found = self.hparams, {}
        heldout = h["heldout_items"], h["heldout_prompts"]
        for hook in self.hook_names:
            activations = [self.concept(name, hook_name=hook) for name in self.prompts.names]
            found[hook] = split_points(activations, self.prompts, *heldout, h["seed"])
        return found

    @property
    def n_labeled(self) -> int:
        """How many labeled points a training batch of this process begins with."""
        return self._plan.n_labeled

    def statistics(self) -> dict[str, ResidualStatistics]:
        """Return by hook the moments of the background residuals; the same on every process."""
        return self.stream.statistics()

    @property
    def stream(self) -> ActivationStream:
        """The training stream, from the step that a checkpoint may have restored."""
        if self._stream is None or self._stream.first_step != self.step:
            keep = self._keeps_stream
            self._stream = ActivationStream(
                self._plan,
                lambda tokens: self._points_on_device(tokens, keep),
                self.contexts("train") if self._plan.background_per_lane else None,
                {
                    hook: ActivationBatch(*(part.to(self._device) for part in points.train))
                    for hook, points in self.points_by_hook.items()
                },
                first_step=self.step,
                n_workers=self.hparams["n_workers"],
            )
        return self._stream

    def train_dataloader(self) -> ActivationStream | OneHook:
        """Return the endless stream of this process's batches; of a list of hooks, by hook."""
        is_one = isinstance(self.hparams["hook_name"], str)
        return OneHook(self.stream) if is_one else self.stream

    def val_dataloader(self) -> list[Batches]:
        """Return this process's held-out text, prompts and items (see `VALIDATION_LOADERS`)."""
        size, world_size = self.hparams["batch_size"], self._world_size
        own = slice(self._rank, None, world_size)
        return [
            Batches(points_at(part, own), size, -(-len(part.labels) // world_size))
            for hook, (_, *heldout) in self.points_by_hook.items()
            for part in (self._heldout_text_points[hook], *heldout)
        ]

    def test_dataloader(self) -> Concepts:
        """Return this process's share of the concepts, part by part where the module has parts."""
        module = self.trainer.lightning_module if self.trainer else None
        own = self.prompts.names[self._rank :: self._world_size]
        load = partial(self.concept, with_padding=self.hparams["test_with_padding"])
        return Concepts(own, load, getattr(module, "parts", ()))

    @cached_property
    def _heldout_text_points(self) -> dict[str, ActivationBatch]:
        calls = self.heldout_contexts().split(self.hparams["lm_batch_size"])
        keep, found = bool(self.hparams["cache_stream"]), {}
        points = [self.points_of(tokens, keep) for tokens in calls]
        for hook in self.hook_names:
            residuals = torch.cat([by_hook[hook] for by_hook in points]).float().to(self._device)
            background = torch.full((len(residuals),), BACKGROUND, device=residuals.device)
            found[hook] = ActivationBatch(residuals, background, background)
        return found

    def _points_on_device(self, tokens: Tensor, keep: bool) -> PointsByHook:
        found = self.points_of(tokens, keep)
        return {hook: x.to(self._device, non_blocking=True) for hook, x in found.items()}

    @property
    def _stage(self) -> str | None:
        """The trainer's; before it starts, that of `setup`."""
        return (self.trainer.state.fn if self.trainer else None) or self._of_setup

    @property
    def _keeps_stream(self) -> bool:
        steps, n_bytes = self.trainer.max_steps if self.trainer else -1, None
        if steps >= 0:
            dtype = autocast_dtype(self.hparams["lm_dtype"], self._device) or torch.float32
            plan = self._plan_of_one
            n_points = steps * plan.background_per_lane * plan.n_lanes * len(self.hook_names)
            n_bytes = n_points * self.model_facts.d_model * dtype.itemsize
        return keeps_stream(self.hparams["cache_stream"], n_bytes)

    @cached_property
    def _plan(self) -> StreamPlan:
        return replace(self._plan_of_one, rank=self._rank, world_size=self._world_size)

    @cached_property
    def _plan_of_one(self) -> StreamPlan:
        """The plan if there were one process."""
        h = self.hparams
        sizes = ("batch_size", "window_steps", "context_size", "lm_batch_size", "n_lanes", "seed")
        n_concept = h["concept_fraction"] * h["batch_size"] / h["n_lanes"]
        return StreamPlan(
            **{name: h[name] for name in sizes},
            n_concept=round(n_concept) * h["n_lanes"],
            rank=0,
            world_size=1,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Count the training steps begun: the position that a checkpoint stores."""
        if self.trainer is not None and self.trainer.training:
            self.step += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.step = state_dict["step"]

    def teardown(self, stage: str) -> None:
        """Say how fast the stream was."""
        if stage != "fit" or self._stream is None or not self._stream.n_tokens:
            return
        n_run, rate = self.n_lm_tokens, self.n_lm_tokens / (self.lm_seconds or 1)
        how = f"{n_run:,} through {self.hparams['lm']} at {rate:,.0f} tokens/s" if n_run else "none"
        kept = f"; kept under {cache_root()}" if self._keeps_stream else ""
        rank_zero_info(f"streamed {self._stream.n_tokens:,} tokens, {how}{kept}")
        for hook, norm in self.sink_norms.items():
            sinks = f"{self.n_sinks[hook]:,} of {self.n_positions:,} positions"
            rank_zero_info(
                f"left out as attention sinks at {hook}: {sinks} (norm above {norm:.4g})"
            )
