"""SAEs that are analysed and not trained, against SAELens' own code, and in the three cases."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.cases.analysis import random_model
from saerepgeo.cases.geometry_tables import geometry_table
from saerepgeo.cases.intervention.displacement import item_points
from saerepgeo.cases.intervention.interventions import intervene
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.sae.inference_only import INFERENCE_ONLY
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.load import load_sae
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.sae_source import SAESource

D_IN, D_SAE = 32, 64
TEMPORAL = {
    "n_heads": 2,
    "bottleneck_factor": 8,
    "normalize_activations": "constant_scalar_rescale",
    "activation_normalization_factor": 0.3,
}
WRITES = {"d_out": 24, "apply_b_dec_to_input": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "temporal": TEMPORAL | {"kval_topk": 5},
    "temporal, relu, untied, two layers": TEMPORAL
    | {"sae_diff_type": "relu", "tied_weights": False, "n_attn_layers": 2},
    "temporal, layer norm": TEMPORAL | {"kval_topk": 5, "normalize_activations": "layer_norm"},
    "transcoder": WRITES,
    "transcoder, layer norm": WRITES | {"normalize_activations": "layer_norm"},
    "skip_transcoder": WRITES,
    "jumprelu_transcoder": WRITES,
    "jumprelu_skip_transcoder": WRITES,
}


def lens_sae(name: str, **overrides: Any) -> Any:
    sae_lens()
    from sae_lens.registry import get_sae_class

    sae_class, config_class = get_sae_class(name.split(",")[0])
    generator = torch.Generator().manual_seed(0)
    sae = sae_class(config_class(**({"d_in": D_IN, "d_sae": D_SAE} | SETTINGS[name] | overrides)))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        if hasattr(sae, "threshold"):
            sae.threshold.abs_()
    return sae


@pytest.fixture
def prompts() -> Tensor:
    return 3 * torch.randn(6, 7, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.fixture
def chosen() -> Tensor:
    mask = torch.rand(6, 7, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[:, 0] = False
    return mask


def test_every_architecture_of_the_installed_saelens_loads() -> None:
    sae_lens()
    from sae_lens.registry import SAE_CLASS_REGISTRY, SAE_TRAINING_CLASS_REGISTRY

    from saerepgeo.sae.io.build import TRAINABLE

    assert {*SAE_CLASS_REGISTRY, *SAE_TRAINING_CLASS_REGISTRY} == {*TRAINABLE, *INFERENCE_ONLY}
    assert {name.split(",")[0] for name in SETTINGS} == set(INFERENCE_ONLY)


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_latents_and_reconstructions_equal_saelens(
    tmp_path: Path, prompts: Tensor, chosen: Tensor, name: str
) -> None:
    lens = lens_sae(name)
    lens.save_model(tmp_path)
    model = load_sae(path=tmp_path)

    latents, normalization = model.encode_prompts(prompts, chosen)
    other, between = model.encode_prompts(prompts + 1, chosen)  # leaves no trace
    recons = model.decode(latents, normalization)

    expected = lens.encode(prompts)[chosen]
    assert_close(latents, expected, rtol=0.0, atol=1e-6 * float(expected.max()))
    assert 0 < int((latents != 0).sum()) < latents.numel()
    expected = lens(prompts)[chosen]
    tight = {"rtol": 0.0, "atol": 1e-6 * float(expected.abs().max())}
    assert_close(recons, expected, **tight)
    assert_close(model.decode(latents, normalization), expected, **tight)
    assert_close(model.decode(other, between), lens(prompts + 1)[chosen], **tight)
    if not model.reads_context:
        assert_close(model(prompts[chosen]).recons, expected, **tight)


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_load_save_load_is_bit_identical(tmp_path: Path, name: str) -> None:
    metadata = {"hook_name": "blocks.1.ln2.hook_normalized", "model_name": "gpt2"}
    lens_sae(name).save_model(tmp_path / "a")
    first = load_sae(path=tmp_path / "a")
    second = load_sae(path=save_sae(first, tmp_path / "b", metadata))

    assert type(second) is type(first)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    again = save_sae(second, tmp_path / "c")
    assert (again / "cfg.json").read_text() == (tmp_path / "b" / "cfg.json").read_text()
    own = sae_lens().SAE.load_from_disk(again)
    assert own.cfg.metadata.hook_name == metadata["hook_name"]
    assert torch.equal(own.W_dec, first.sae.W_dec)


def test_the_context_is_what_saelens_sees_with_and_without_bos(
    tmp_path: Path, prompts: Tensor, chosen: Tensor
) -> None:
    lens = lens_sae("temporal")
    for prepend_bos, seen in ((True, prompts), (False, prompts[:, 1:])):
        lens.cfg.metadata.prepend_bos = prepend_bos
        lens.save_model(tmp_path)
        found = load_sae(path=tmp_path).encode_prompts(prompts, chosen).latents
        expected = lens.encode(seen)[chosen[:, -seen.shape[1] :]]
        assert_close(found, expected)
    assert not torch.allclose(found, lens.encode(prompts)[chosen])


def test_points_without_context_are_refused(tmp_path: Path, prompts: Tensor) -> None:
    lens_sae("temporal").save_model(tmp_path)
    model = load_sae(path=tmp_path)
    with pytest.raises(ValueError, match="encodes a point within its context"):
        model.encode(prompts[0])
    latents = model.encode_prompts(prompts, torch.ones(6, 7, dtype=torch.bool)).latents
    with pytest.raises(ValueError, match="`normalization` must be given to decode a temporal"):
        model.decode(latents)


@pytest.mark.parametrize(
    ("architecture", "stage", "message"),
    [
        ("temporal", "fit", "has no training form: `fit` cannot use it here; run `test` with conf"),
        ("temporal", "validate", "encodes whole prompts"),
        ("transcoder", "fit", "has no training form"),
        ("transcoder", "validate", "reconstructs `blocks.1.hook_mlp_out` and not the residuals"),
        ("skip_transcoder", "test", "reconstructs a hook that its metadata do not name.*case2"),
    ],
)
def test_what_it_cannot_do_is_said_before_weights_are_read(
    tmp_path: Path, architecture: str, stage: str, message: str
) -> None:
    lens = lens_sae(architecture)
    if architecture == "transcoder":
        lens.cfg.metadata.hook_name_out = "blocks.1.hook_mlp_out"
    lens.save_model(tmp_path)
    (tmp_path / "sae_weights.safetensors").unlink()
    source = SAESource(path=str(tmp_path))
    with pytest.raises(ValueError, match=message) as error:
        source.check_use(stage)
    assert "\n" not in str(error.value)


def test_training_is_refused(tmp_path: Path, prompts: Tensor) -> None:
    lens_sae("transcoder").save_model(tmp_path)
    with pytest.raises(ValueError, match="`training` must be left out"):
        load_sae(path=tmp_path, training={"l1_coefficient": 1.0})
    model = load_sae(path=tmp_path)
    with pytest.raises(ValueError, match="can be analysed but not trained here"):
        model.train()(prompts[0])


@pytest.mark.parametrize("name", SETTINGS)
@torch.no_grad()
def test_the_random_dictionary_is_as_sparse(
    tmp_path: Path, prompts: Tensor, chosen: Tensor, name: str
) -> None:
    lens_sae(name).save_model(tmp_path)
    model = load_sae(path=tmp_path)
    random = random_model(model, prompts, chosen, torch.Generator().manual_seed(0))
    assert type(random) is type(model)
    l0 = [
        float((m.encode_prompts(prompts, chosen).latents != 0).sum(1).float().mean())
        for m in (model, random)
    ]
    assert l0[1] == pytest.approx(l0[0], rel=0.15)
    assert_close(random.decoder_norms(), torch.ones(D_SAE))
    if model.reads_context:  # nothing is predicted: every position is as if alone
        alone = random.encode_prompts(
            prompts[chosen][:, None], torch.ones(int(chosen.sum()), 1) > 0
        )
        assert_close(random.encode_prompts(prompts, chosen).latents, alone.latents)


def test_figures_of_a_transcoder_are_of_the_hook_that_it_writes(
    tmp_path: Path, tiny_data: dict[str, Any]
) -> None:
    reads, writes = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
    lens = lens_sae("skip_transcoder", d_out=D_IN)
    lens.cfg.metadata.hook_name, lens.cfg.metadata.hook_name_out = reads, writes
    lens.save_model(tmp_path)
    model = load_sae(path=tmp_path)
    data = ActivationDataModule(**(tiny_data | {"concepts": ["days"], "hook_name": reads}))
    inputs, outputs = data.concept("days"), data.concept("days", hook_name=writes)
    assert not torch.equal(inputs.residuals, outputs.residuals)
    points = item_points(model, inputs, outputs.residuals)
    with torch.no_grad():
        all_recons = lens(inputs.residuals)
    found = points.recons_under(torch.ones_like(points.effective.values))
    rows = [int((outputs.residuals == y).all(-1).any(-1).nonzero()[0]) for y in points.residuals]
    at = inputs.item_positions[rows]
    assert_close(points.residuals, outputs.residuals[rows, at])
    expected = all_recons[rows, at]
    assert_close(found, expected, rtol=0.0, atol=1e-6 * float(expected.abs().max()))

    row = list(geometry_table(data, model))[1]
    error = (expected - points.residuals).square().sum()
    variance = (points.residuals - points.residuals.mean(0)).square().sum()
    assert row["fvu"] == pytest.approx(float(error / variance), rel=1e-4)


def test_a_table_of_a_temporal_sae(tmp_path: Path, tiny_data: dict[str, Any]) -> None:
    lens = lens_sae("temporal")
    lens.cfg.metadata.hook_name = tiny_data["hook_name"]
    lens.save_model(tmp_path)
    data = ActivationDataModule(**(tiny_data | {"concepts": ["days"]}))
    row = list(geometry_table(data, load_sae(path=tmp_path)))[1]
    concept = data.concept("days")
    at = torch.zeros_like(concept.is_real)
    at[torch.arange(len(at)), concept.item_positions] = True
    latents = lens.encode(concept.residuals)[at]
    assert row["l0"] == pytest.approx(float((latents > 0).sum(1).float().mean()), rel=0.05)
    assert row["fvu"] > 0


def test_interventions_keep_what_the_context_predicts(
    tmp_path: Path, tiny_data: dict[str, Any]
) -> None:
    lens = lens_sae("temporal")
    lens.save_model(tmp_path)
    model = load_sae(path=tmp_path)
    data = ActivationDataModule(**tiny_data)
    concept = data.concept("days", with_padding=True)
    points = item_points(model, concept)
    rows = [int((concept.residuals == x).all(-1).any(-1).nonzero()[0]) for x in points.residuals]
    expected = lens(concept.residuals)[rows, concept.item_positions[rows]].detach()
    recons = points.recons_under(torch.ones_like(points.effective.values))
    assert_close(recons, expected, rtol=0.0, atol=1e-6 * float(expected.abs().max()))

    labels = torch.arange(concept.tokens.numel()) % 3
    tokenizer = data.tokenizer.tokenizer
    found = intervene(
        model, concept, tokenizer, "tiny", scale_factors=(1.5,), cluster_labels=labels
    )
    assert {row["protocol"] for row in found.rows} == {"paper", "sound"}
    assert all(row["mse_loss"] > 0 for row in found.rows)


def test_a_constant_scale_of_a_transcoder_is_undone_where_it_writes(prompts: Tensor) -> None:
    sae = lens_sae("transcoder", normalize_activations="expected_average_only_in")
    model, points = INFERENCE_ONLY["transcoder"](sae, 4.0), prompts[0]
    with torch.no_grad():
        found = model.decode(*model.encode(points))
        assert_close(found, sae.decode(sae.encode(4 * points)) / 4)
