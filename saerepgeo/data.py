"""ActivationDataModule: owns the language model, the stream of its residuals, and its position."""

import hashlib
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from saerepgeo.cache import cached_tensors, model_fingerprint
from saerepgeo.concepts import ConceptPoints, LMSettings, concept_activations, split_points
from saerepgeo.contexts import open_contexts
from saerepgeo.lm import FrozenLM, check_hook_name
from saerepgeo.lm_precision import Dtype, autocast_dtype
from saerepgeo.lm_sources import model_facts
from saerepgeo.loaders import Batches, Concepts, ResidualStatistics
from saerepgeo.prompts import ConceptPrompts, load_prompts
from saerepgeo.stream import ActivationStream, StreamPlan
from saerepgeo.text import open_text
from saerepgeo.tokenization import LMTokenizer
from saerepgeo.types import BACKGROUND, ActivationBatch, ConceptActivations, ModelFacts

VALIDATION_LOADERS = ("text", "heldout_prompts", "heldout_items")
"""What the validation dataloaders hold, by `dataloader_idx`."""


class ActivationDataModule(LightningDataModule):
    """Stream residuals of a frozen language model: labelled concept points and background text.

    Training batches are `ActivationBatch`es of `batch_size` points over all devices, of which
    `concept_fraction` are labelled. Batch number `step` depends on (seed, step) alone, so that a
    resumed run and one on other devices see the same points. Validation gives three dataloaders:
    held-out text, held-out prompts of the training items, held-out items. Testing gives each
    concept's prompts whole, as `ConceptActivations`.

    Args:
        lm: hub id, local Hugging Face folder, GGUF file, or `smollm2-135m`.
        hook_name: TransformerLens name of the hook.
        lm_dtype: `float32`, `bfloat16` (autocast) or `auto` (bfloat16 where it is native).
        center_residuals: subtract each residual's mean over d_model (TransformerLens'
            `center_writing_weights`), for SAEs trained under it.
        prompts: a prompts file, `{concept: [prompt, …]}`; the shipped one by default.
        concepts: which of its concepts; None for all.
        text: background text: `sample`, files (.txt .jsonl .gz), or `hf:NAME[:config][:split]`.
        heldout_text: text for validation; by default every twentieth document of `text`.
        heldout_text_fraction: the share of documents so held out.
        heldout_items: share of each concept's items kept out of training altogether.
        heldout_prompts: share of the other items' prompts kept out of training.
        batch_size: points of a step over all devices.
        concept_fraction: share of labelled points in a training batch.
        context_size: tokens of a context, BOS included.
        window_steps: steps whose background points are shuffled together.
        lm_batch_size: contexts of one LM call, at most.
        n_lanes: equal parts of a batch that are computed independently; a multiple of the number
            of devices. Changing it changes the batches, changing the devices does not.
        validation_contexts: contexts of held-out text.
        n_workers: processes that tokenise ahead (needed only for slow text sources).
        cache_stream: keep streamed residuals on disk (`saerepgeo.cache`), 4·d_model bytes a point:
            a second run over the same text never runs the model.
        test_with_padding: whether test batches hold the residuals of padding positions as well.
        seed: of everything random here.
    """

    def __init__(
        self,
        lm: str = "smollm2-135m",
        hook_name: str = "blocks.10.hook_resid_post",
        lm_dtype: Dtype = "auto",
        center_residuals: bool = False,
        prompts: str | None = None,
        concepts: list[str] | None = None,
        text: str | list[str] = "sample",
        heldout_text: str | list[str] | None = None,
        heldout_text_fraction: float = 0.05,
        heldout_items: float = 0.2,
        heldout_prompts: float = 0.25,
        batch_size: int = 4096,
        concept_fraction: float = 0.0625,
        context_size: int = 128,
        window_steps: int = 8,
        lm_batch_size: int = 32,
        n_lanes: int = 8,
        validation_contexts: int = 64,
        n_workers: int = 0,
        cache_stream: bool = False,
        test_with_padding: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= concept_fraction <= 1:
            raise ValueError(f"`concept_fraction` must be in [0, 1], got {concept_fraction}")
        self.save_hyperparameters()
        self.step = 0
        self._lm: FrozenLM | None = None
        self._stream: ActivationStream | None = None

    @cached_property
    def prompts(self) -> ConceptPrompts:
        """The concepts and their prompts, in the order of the concept ids."""
        return load_prompts(self.hparams["prompts"], self.hparams["concepts"])

    @property
    def lm(self) -> FrozenLM:
        """The language model; loaded when first needed, never if all activations are cached."""
        if self._lm is None:
            h = self.hparams
            self._lm = FrozenLM.load(
                h["lm"], h["hook_name"], h["lm_dtype"], self._device, h["center_residuals"]
            )
        return self._lm

    @cached_property
    def tokenizer(self) -> LMTokenizer:
        """The model's tokenizer; loaded without the model."""
        return LMTokenizer.load(self.hparams["lm"])

    @cached_property
    def model_facts(self) -> ModelFacts:
        """Width and normalisation of the language model, from its configuration alone."""
        return model_facts(self.hparams["lm"])

    def prepare_data(self) -> None:
        """Check what can be checked cheaply, in one process, before anything slow starts."""
        check_hook_name(self.hparams["lm"], self.hparams["hook_name"])

    def setup(self, stage: str) -> None:
        """Check the prompts file and the plan before the model is loaded."""
        _ = self.prompts
        if stage == "fit":
            _ = self._plan

    @cached_property
    def points(self) -> ConceptPoints:
        """The labelled points: training, held-out prompts, held-out items."""
        h = self.hparams
        return split_points(
            [self.concept(name) for name in self.prompts.names],
            self.prompts,
            h["heldout_items"],
            h["heldout_prompts"],
            h["seed"],
        )

    def concept(self, name: str, with_padding: bool = False) -> ConceptActivations:
        """Return all prompts of the concept `name` with their residuals (cached on disk)."""
        return concept_activations(
            self.prompts[name], self._settings, lambda: self.lm, with_padding
        )

    def statistics(self) -> ResidualStatistics:
        """Return the moments of the background residuals; the same on every process."""
        x = self.stream.first_lane_points().double()
        mean = x.mean(0)
        variance = (x - mean).square().sum(1).mean()
        return ResidualStatistics(mean.float(), variance.float(), x.square().sum(1).mean().float())

    @property
    def stream(self) -> ActivationStream:
        """The training stream, from the step that a checkpoint may have restored."""
        if self._stream is None or self._stream.first_step != self.step:
            contexts = self._contexts("train") if self._plan.background_per_lane else None
            self._stream = ActivationStream(
                self._plan,
                self._points_of,
                contexts,
                self.points.train,
                first_step=self.step,
                n_workers=self.hparams["n_workers"],
            )
        return self._stream

    def train_dataloader(self) -> ActivationStream:
        """Return the endless stream of this process's batches."""
        return self.stream

    def val_dataloader(self) -> list[Batches]:
        """Return held-out text, held-out prompts and held-out items (see `VALIDATION_LOADERS`)."""
        text, points = self._heldout_text_points, self.points
        size, world_size = self.hparams["batch_size"], self._world_size
        own = slice(self._rank, None, world_size)
        return [
            Batches(
                ActivationBatch(*(column[own] for column in part)),
                size,
                n_points=-(-len(part.labels) // world_size),  # all processes take part in each
            )
            for part in (text, points.heldout_prompts, points.heldout_items)
        ]

    def test_dataloader(self) -> Concepts:
        """Return the concepts, one `ConceptActivations` each."""
        with_padding = self.hparams["test_with_padding"]
        return Concepts(self.prompts.names, lambda name: self.concept(name, with_padding))

    def predict_dataloader(self) -> Batches:
        """Return the held-out text."""
        return Batches(self._heldout_text_points, self.hparams["batch_size"])

    def heldout_contexts(self) -> Tensor:
        """Return tokens `[context, position]` of held-out text, for losses of the model itself."""
        contexts = self._contexts("heldout")
        available = contexts.n_contexts
        n = self.hparams["validation_contexts"]
        return contexts.read(range(n if available is None else min(n, available)))

    @cached_property
    def _heldout_text_points(self) -> ActivationBatch:
        calls = self.heldout_contexts().split(self.hparams["lm_batch_size"])
        points = [self._points_of(tokens) for tokens in calls]
        residuals = torch.cat(points)
        background = torch.full((len(residuals),), BACKGROUND, device=residuals.device)
        return ActivationBatch(residuals, background, background)

    def _points_of(self, tokens: Tensor) -> Tensor:
        """Return the real points of contexts; from the disk cache where that is switched on."""
        if not self.hparams["cache_stream"]:
            return self.lm.real_points(tokens)
        digest = hashlib.sha256(tokens.numpy().tobytes()).hexdigest()
        key = {
            "kind": "points/1",
            "model": self._model_fingerprint,
            **self._settings._asdict(),
            "tokens": [digest, *tokens.shape],
        }
        stored = cached_tensors(key, lambda: {"points": self.lm.real_points(tokens).cpu()})
        return stored["points"].to(self._device)

    def _contexts(self, split: Any) -> Any:
        h = self.hparams
        source = h["text"]
        if h["heldout_text"] is not None:
            source, split = (h["heldout_text"] if split == "heldout" else source), "all"
        return open_contexts(
            open_text(source),
            self.tokenizer,
            h["context_size"],
            split,
            h["heldout_text_fraction"],
        )

    @cached_property
    def _plan(self) -> StreamPlan:
        h = self.hparams
        n_lanes = h["n_lanes"]
        return StreamPlan(
            batch_size=h["batch_size"],
            n_concept=round(h["concept_fraction"] * h["batch_size"] / n_lanes) * n_lanes,
            window_steps=h["window_steps"],
            context_size=h["context_size"],
            lm_batch_size=h["lm_batch_size"],
            n_lanes=n_lanes,
            rank=self._rank,
            world_size=self._world_size,
            seed=h["seed"],
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
        stream = self._stream
        if stage == "fit" and stream is not None and stream.seconds > 0:
            rate = stream.n_tokens / stream.seconds
            rank_zero_info(
                f"streamed {stream.n_tokens:,} tokens through {self.hparams['lm']} "
                f"at {rate:,.0f} tokens/s"
            )

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def _settings(self) -> LMSettings:
        h = self.hparams
        dtype = str(autocast_dtype(h["lm_dtype"], self._device))
        return LMSettings(h["lm"], h["hook_name"], dtype, h["center_residuals"])

    @cached_property
    def _model_fingerprint(self) -> str:
        return model_fingerprint(self.hparams["lm"])
