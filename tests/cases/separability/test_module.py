"""The fine-tuning module with the real data module and trainer, on a small random model."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from lightning.pytorch import Trainer

from saerepgeo.cases.separability.losses import Regularizer
from saerepgeo.cases.separability.module import SeparabilityModule
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.sae_source import SAESource

SETTINGS: dict[str, dict[str, Any]] = {
    "topk": {"k": 4},
    "batchtopk": {"k": 4},
    "standard": {"l1_coefficient": 0.1},
    "jumprelu": {"l0_coefficient": 0.1},
    "gated": {"l1_coefficient": 0.1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sae") / "topk"
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), path)


def fit(tiny_data: dict[str, Any], tmp_path: Path, steps: int = 3, **arguments: Any) -> Any:
    trainer_keys = ("precision", "gradient_clip_val", "callbacks")
    chosen = {key: arguments.pop(key) for key in trainer_keys if key in arguments}
    module = SeparabilityModule(**arguments)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
        log_every_n_steps=1,
        **chosen,
    )
    trainer.fit(module, datamodule=ActivationDataModule(**tiny_data))
    return module, {k: float(v) for k, v in trainer.callback_metrics.items()}


@pytest.mark.parametrize("architecture", SETTINGS)
def test_every_architecture_trains(tiny_data, tmp_path, architecture):
    source = SAESource(architecture=architecture, d_in=32, d_sae=96, options=SETTINGS[architecture])
    module, figures = fit(tiny_data, tmp_path, sae=source, lr=1e-2, warmup_steps=0, steps=12)
    assert figures["val/fvu"] < 1
    torch.testing.assert_close(module.sae.decoder_norms().detach(), torch.ones(96))
    names = ("mse", "l0", "dead_fraction", "aedp", "relative_aedp", "fisher_ratio", "aedp/months")
    assert all(f"val/{name}" in figures for name in names)
    assert "val/heldout_items/aedp" in figures


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_lowers_the_error(tiny_data, folder, tmp_path, precision):
    source = SAESource(path=str(folder))
    _, before = fit(tiny_data, tmp_path, sae=source, weight=0.0, lr=1e-9, steps=1)
    _, after = fit(
        tiny_data, tmp_path, sae=source, weight=0.0, lr=1e-2, steps=40, precision=precision
    )
    assert after["val/mse"] < 0.9 * before["val/mse"]


@pytest.mark.parametrize("regularizer", get_args(Regularizer))
def test_the_regularizer_moves_separability_both_ways(tiny_data, folder, tmp_path, regularizer):
    name = "fisher_ratio" if "fisher" in regularizer else "aedp"
    got = {}
    for direction in ("increase", "decrease"):
        _, figures = fit(
            tiny_data | {"heldout_items": 0.0, "batch_size": 256},
            tmp_path,
            sae=SAESource(path=str(folder)),
            regularizer=regularizer,
            direction=direction,
            weight=3.0,
            target_scale=2.0,
            lr=5e-3,
            steps=15,
        )
        got[direction] = figures[f"val/{name}"]
    assert got["increase"] > 1.1 * got["decrease"]


def test_shuffled_labels_are_another_loss_with_the_same_data(tiny_data, folder, tmp_path):
    arguments = {"sae": SAESource(path=str(folder)), "weight": 1.0, "steps": 1}
    _, plain = fit(tiny_data, tmp_path, **arguments)
    _, shuffled = fit(tiny_data, tmp_path, shuffle_labels=True, **arguments)
    assert plain["train/mse"] == shuffled["train/mse"]
    assert plain["train/separability"] != shuffled["train/separability"]


def test_gradients_are_clipped(tiny_data, folder, tmp_path):
    arguments = {"sae": SAESource(path=str(folder)), "steps": 1}
    seen = []

    class Watch(SeparabilityModule):
        def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            super().optimizer_step(*args, **kwargs)
            seen.append(torch.stack([p.grad.norm() for p in self.sae.parameters()]).norm())

    module = Watch(sae=arguments["sae"])
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        gradient_clip_val=1e-4,
        precision="bf16-mixed",
        default_root_dir=tmp_path,
    )
    trainer.fit(module, datamodule=ActivationDataModule(**tiny_data))
    assert float(seen[0]) == pytest.approx(1e-4, rel=1e-2)
    assert float(trainer.callback_metrics["train/gradient_norm"]) > 1e-4


def test_a_loss_that_is_not_finite_stops_the_run(tiny_data, folder, tmp_path):
    with pytest.raises(ValueError, match=r"the mse at step .* lower `lr` or `weight`"):
        fit(tiny_data, tmp_path, sae=SAESource(path=str(folder)), lr=1e30, warmup_steps=0, steps=5)


def test_an_sae_of_another_hook_is_refused(tiny_data, tmp_path):
    path = save_sae(
        new_sae("topk", d_in=32, d_sae=64, k=4),
        tmp_path / "other",
        {"hook_name": "blocks.0.hook_resid_post"},
    )
    with pytest.raises(ValueError, match=r"blocks\.0\.hook_resid_post"):
        fit(tiny_data, tmp_path, sae=SAESource(path=str(path)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SAESource(), "exactly one of"),
        (SAESource(path="x", architecture="topk"), "exactly one of"),
        (SAESource(path="/nowhere"), "must be a folder"),
        (SAESource(release="r"), "needs `sae.sae_id`"),
        (SAESource(architecture="topk"), "needs `sae.d_in`"),
    ],
)
def test_bad_sources_are_named(source, message):
    with pytest.raises(ValueError, match=message):
        SeparabilityModule(sae=source)


@pytest.mark.parametrize("changes", [{"target_scale": 0.0}, {"decay_fraction": 1.5}])
def test_bad_settings_are_named(folder, changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        SeparabilityModule(sae=SAESource(path=str(folder)), **changes)
