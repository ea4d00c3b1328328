"""The data module: what it yields, what it keeps, what it refuses."""

from itertools import islice

import pytest
import torch

from saerepgeo.data.cache import cache_size, clear_cache
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.lm.sources import model_fingerprint
from saerepgeo.types import ActivationBatch, ConceptActivations


@pytest.fixture
def data(tiny_data):
    module = ActivationDataModule(**tiny_data)
    module.prepare_data()
    module.setup("fit")
    return module


def test_training_batches(data):
    for batch in islice(data.train_dataloader(), 4):
        assert isinstance(batch, ActivationBatch)
        assert batch.residuals.shape == (64, 32)
        assert (batch.labels >= 0).sum() == 16
        assert batch.residuals.isfinite().all()


def test_validation_has_heldout_text_prompts_and_items(data):
    text, prompts, items = ([*loader] for loader in data.val_dataloader())
    assert sum(len(b.labels) for b in text) == 8 * 15
    assert all((b.labels == -1).all() for b in text)
    trained = set(data.points.train.labels.tolist())
    assert {label for b in prompts for label in b.labels.tolist()} <= trained
    assert not {label for b in items for label in b.labels.tolist()} & trained


def test_processes_validate_equally_many_batches(tiny_data, monkeypatch):
    data = ActivationDataModule(**tiny_data | {"batch_size": 17})  # 120 points: 18 for one, 17 each
    whole = list(data.val_dataloader()[0])
    monkeypatch.setattr(ActivationDataModule, "_world_size", 7)
    batches = []
    for rank in range(7):
        monkeypatch.setattr(ActivationDataModule, "_rank", rank)
        batches.append(list(data.val_dataloader()[0]))
    assert [len(own) for own in batches] == [2] * 7
    points = torch.cat([b.residuals for own in batches for b in own])
    expected = torch.cat([b.residuals for b in whole])
    assert points.sort(0).values.equal(expected.sort(0).values)


def test_testing_gives_whole_concepts(data):
    concepts = list(data.test_dataloader())
    assert [c.concept for c in concepts] == ["months", "days"]
    assert all(isinstance(c, ConceptActivations) for c in concepts)
    assert concepts[0].residuals.shape == (*concepts[0].tokens.shape, 32)


def test_the_position_is_the_only_state(data, tiny_data):
    whole = list(islice(data.train_dataloader(), 6))
    assert data.state_dict() == {"step": 0}
    resumed = ActivationDataModule(**tiny_data)
    resumed.setup("fit")
    resumed.load_state_dict({"step": 4})
    for got, expected in zip(islice(resumed.train_dataloader(), 2), whole[4:], strict=True):
        assert got.residuals.equal(expected.residuals)


def test_statistics_are_those_of_the_text(data):
    statistics = data.statistics()
    points = torch.cat([b.residuals[16:] for b in islice(data.train_dataloader(), 12)])
    spread = (points - points.mean(0)).square().sum(1).mean()
    assert statistics.variance == pytest.approx(float(spread), rel=0.2)
    torch.testing.assert_close(
        statistics.mean_square, statistics.variance + statistics.mean.square().sum()
    )


def test_a_cached_stream_is_the_stream_and_needs_no_model(tiny_data, monkeypatch):
    plain = ActivationDataModule(**tiny_data)
    cached = ActivationDataModule(**tiny_data, cache_stream=True)
    again = ActivationDataModule(**tiny_data, cache_stream=True)
    for module in (plain, cached, again):
        module.setup("fit")
    expected = list(islice(plain.train_dataloader(), 5))
    list(islice(cached.train_dataloader(), 5))
    monkeypatch.setattr("saerepgeo.data.lm_module.FrozenLM", None)  # loading it would fail
    for got, batch in zip(islice(again.train_dataloader(), 4), expected[:4], strict=True):
        assert got.residuals.equal(batch.residuals)


def test_cache_size_and_clearing(tiny_data, data):
    next(iter(data.train_dataloader()))
    size = cache_size()
    assert size > 0
    assert clear_cache() == size
    assert cache_size() == 0


def test_a_changed_model_has_another_fingerprint(tiny_lm, tmp_path):
    import shutil

    before = model_fingerprint(str(tiny_lm))
    copy = tmp_path / "copy"
    shutil.copytree(tiny_lm, copy)
    assert model_fingerprint(str(tiny_lm)) == before
    weights = next(copy.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b" ")
    assert model_fingerprint(str(copy)) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"concept_fraction": 1.5}, "`concept_fraction` must be in"),
        ({"concepts": ["months", "nothing"]}, "no concept 'nothing'"),
        ({"batch_size": 63}, "`batch_size` must be a multiple"),
        ({"hook_name": "blocks.7.hook_resid_post"}, "layers 0 to 2"),
        ({"prompts": "/nowhere.json"}, "cannot read the prompts file"),
    ],
)
def test_bad_arguments_are_named_before_the_model_is_loaded(
    tiny_data, changes, message, monkeypatch
):
    monkeypatch.setattr("saerepgeo.data.lm_module.FrozenLM", None)

    def start() -> None:
        module = ActivationDataModule(**(tiny_data | changes))
        module.prepare_data()
        module.setup("fit")

    with pytest.raises(ValueError, match=message):
        start()
