"""Cross entropy and divergence recovered: known answers at both ends, on a small random model."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from saerepgeo.callbacks.lm_loss import LMLoss, recovery_figures, spliced
from saerepgeo.cases.separability.module import SeparabilityModule
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.sae.sae_source import SAESource


class Scaled(nn.Module):
    """In place of an SAE: what it gives is a multiple of what it gets."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, residuals):
        return SimpleNamespace(recons=self.factor * residuals)


def halved(residuals):
    """Residuals without half of their columns; a multiple of them the next norm would undo."""
    return residuals * (torch.arange(residuals.shape[-1]) < residuals.shape[-1] // 2)


class Halved(nn.Module):
    """In place of an SAE: what it gives is half of what it gets."""

    def forward(self, residuals):
        return SimpleNamespace(recons=halved(residuals))


@pytest.fixture
def data(tiny_data):
    return ActivationDataModule(**tiny_data)


def test_a_perfect_reconstruction_recovers_everything_and_zeros_nothing(data):
    tokens = data.heldout_contexts()
    perfect = recovery_figures(lambda: data.lm, data.lm_settings, tokens, Scaled(1.0))
    assert perfect["ce_recovered"] == pytest.approx(1)
    assert perfect["kl_recovered"] == pytest.approx(1)
    assert perfect["kl_sae"] == pytest.approx(0, abs=1e-9)
    nothing = recovery_figures(lambda: data.lm, data.lm_settings, tokens, Scaled(0.0))
    assert nothing["ce_recovered"] == pytest.approx(0, abs=1e-9)
    assert nothing["kl_recovered"] == pytest.approx(0, abs=1e-9)
    half = recovery_figures(lambda: data.lm, data.lm_settings, tokens, Halved())
    assert 0.05 < half["kl_recovered"] < 0.95


def test_the_divergence_is_that_of_the_distributions(data):
    tokens = data.heldout_contexts()[:1]
    found = recovery_figures(lambda: data.lm, data.lm_settings, tokens, Halved())
    mask = data.lm.tokenizer.is_real(tokens)
    _, clean = data.lm.token_losses(tokens)
    _, other = data.lm.token_losses(tokens, spliced(data.lm, mask, halved))
    p, q = (torch.distributions.Categorical(logits=x[:, :-1]) for x in (clean, other))
    expected = torch.distributions.kl_divergence(p, q)[mask[:, :-1]].mean()
    assert found["kl_sae"] == pytest.approx(float(expected), rel=1e-4)


def test_the_beginning_of_a_context_keeps_its_residual(data):
    tokens = data.heldout_contexts()[:1]
    mask = data.lm.tokenizer.is_real(tokens)
    assert not mask[0, 0]
    residuals = torch.ones(*tokens.shape, data.lm.d_model)
    out = spliced(data.lm, mask, torch.zeros_like)(residuals)
    assert bool((out[0, 0] == 1).all())
    assert bool((out[mask] == 0).all())


def test_centered_points_get_their_means_back(data):
    lm = data.lm
    lm.center_residuals = True
    seen = []
    residuals = torch.randn(1, 3, 8) + 5
    mask = torch.ones(1, 3, dtype=torch.bool)
    out = spliced(lm, mask, lambda x: seen.append(x) or x)(residuals)
    torch.testing.assert_close(out, residuals)
    assert float(seen[0].mean(-1).abs().max()) < 1e-5


def test_the_callback_logs_at_the_last_validation_only(tiny_data, tmp_path):
    from lightning.pytorch import Trainer

    source = SAESource(architecture="topk", d_in=32, d_sae=64, options={"k": 4})
    module = SeparabilityModule(source, weight=0.0)
    seen = []

    class Recorder(LMLoss):
        def on_validation_epoch_end(self, trainer, pl_module):
            before = set(trainer.callback_metrics)
            super().on_validation_epoch_end(trainer, pl_module)
            seen.append((trainer.global_step, "val/kl_sae" in trainer.callback_metrics, before))

    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        max_steps=2,
        max_epochs=-1,
        val_check_interval=1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Recorder(n_contexts=2)],
    )
    trainer.fit(module, datamodule=ActivationDataModule(**tiny_data))
    assert [step for step, *_ in seen] == [1, 2]
    assert float(trainer.callback_metrics["val/ce_clean"]) > 0
    assert float(trainer.callback_metrics["val/kl_recovered"]) <= 1
    assert "val/kl_sae" not in seen[1][2]


def test_no_contexts_is_refused():
    with pytest.raises(ValueError, match="n_contexts"):
        LMLoss(n_contexts=0)
