"""Activations whose structure is known, and an SAE that keeps it."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from saerepgeo.data.concepts import Concepts
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.types import ConceptActivations, ModelFacts

WIDTH, RANK, DIMENSION = 32, 6, 2
N_ITEMS, N_PROMPTS, N_POSITIONS = 4, 10, 12


def planted_concept(seed: int = 0) -> ConceptActivations:
    """Every item a sphere (dimension 2, no border), all of them in one 6-dimensional subspace.

    Prompts begin with a BOS of huge norm and differ in length; padding has residuals of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(RANK, WIDTH, generator=generator, dtype=torch.float64)
    basis[0] = 1  # a direction that makes all coordinates positive
    basis = torch.linalg.qr(basis.T).Q.T
    basis[0] = basis[0].abs()
    n_rows = N_ITEMS * N_PROMPTS
    labels = torch.arange(N_ITEMS).repeat_interleave(N_PROMPTS)
    centers = 14 * torch.eye(N_ITEMS, RANK - 1, dtype=torch.float64)
    frames = [
        torch.linalg.qr(torch.randn(RANK - 1, 3, generator=generator, dtype=torch.float64)).Q.T
        for _ in range(N_ITEMS)
    ]
    residuals = torch.zeros(n_rows, N_POSITIONS, WIDTH)
    for row, label in enumerate(labels.tolist()):
        sphere = torch.randn(N_POSITIONS, 3, generator=generator, dtype=torch.float64)
        sphere = sphere / sphere.norm(dim=1, keepdim=True)
        inner = centers[label] + 2 * sphere @ frames[label]
        shifted = torch.cat([torch.full((N_POSITIONS, 1), 120.0), inner], 1)
        residuals[row] = (shifted @ basis).float()
    residuals[:, 0] = 1000 * torch.randn(n_rows, WIDTH, generator=generator)
    lengths = N_POSITIONS - torch.arange(n_rows) % 3
    is_real = torch.arange(N_POSITIONS) < lengths[:, None]
    is_real[:, 0] = False
    residuals[~is_real] = 1000 * torch.randn(int((~is_real).sum()), WIDTH, generator=generator)
    tokens = torch.arange(n_rows * N_POSITIONS).reshape(n_rows, N_POSITIONS)
    tokens[:, 0] = 0
    return ConceptActivations(
        concept="planted",
        items=tuple("abcd"),
        tokens=tokens,
        residuals=residuals,
        is_real=is_real,
        labels=labels,
        item_positions=torch.ones(n_rows, dtype=torch.long),
    )


class PlantedData(LightningDataModule):
    """A language model's place is taken by `planted_concept`."""

    names = ("planted",)

    def __init__(self, lm: str = "planted", hook_name: str = "blocks.0.hook_resid_post") -> None:
        super().__init__()
        self.save_hyperparameters()

    @property
    def model_facts(self) -> ModelFacts | None:
        return None

    def test_dataloader(self) -> Concepts:
        parts = getattr(self.trainer.lightning_module, "parts", ())
        return Concepts(self.names, lambda name: planted_concept()._replace(concept=name), parts)


class Rows(Callback):
    """Keeps the rows that the test steps of a module returned."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.rows += outputs["rows"]


def run_test(
    module: LightningModule, *callbacks: Callback, folder: Path, data: Any = None
) -> list[dict[str, Any]]:
    """Return the rows of a module on the planted concept."""
    kept = Rows()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[kept, *callbacks],
        default_root_dir=folder,
    )
    trainer.test(module, datamodule=PlantedData() if data is None else data, verbose=False)
    return kept.rows


def save_isometric_sae(folder: Path) -> None:
    """Write an SAE whose latents are the positive and negative parts of the residuals.

    On residuals without negative coordinates that is an isometry. Its decoder rows have norms other
    than 1, made up for in the encoder: effective latents undo them, raw ones do not.
    """
    model = new_sae("standard", d_in=WIDTH, d_sae=2 * WIDTH)
    norms = torch.linspace(0.5, 3, 2 * WIDTH)
    eye = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    with torch.no_grad():
        model.sae.W_enc.copy_((eye / norms[:, None]).T)
        model.sae.W_dec.copy_(eye * norms[:, None])
    save_sae(model, folder)
