"""The data module: what it yields, what it keeps, what it refuses."""

from importlib.metadata import version
from itertools import islice

import pytest
import torch

from saerepgeo.data.cache import cache_size, clear_cache
from saerepgeo.data.contexts import _Tokens
from saerepgeo.data.lm_module import sample_contexts
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.data.stream import CallTokens
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.sources import model_fingerprint
from saerepgeo.types import ActivationBatch, ConceptActivations


@pytest.fixture
def data(tiny_data):
    module = ActivationDataModule(**tiny_data)
    module.prepare_data()
    module.setup("fit")
    return module


def read(data: ActivationDataModule, tokens: torch.Tensor) -> torch.Tensor:
    return data.points_of(tokens, keep=False)[data.hook_names[0]]


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
    statistics = data.statistics()[data.hook_names[0]]
    points = torch.cat([b.residuals[16:] for b in islice(data.train_dataloader(), 12)])
    spread = (points - points.mean(0)).square().sum(1).mean()
    assert statistics.variance == pytest.approx(float(spread), rel=0.2)
    torch.testing.assert_close(
        statistics.mean_square, statistics.variance + statistics.mean.square().sum()
    )


def test_statistics_say_how_sure_they_are(data, monkeypatch):
    """The standard error is that of contexts: the spread of the figure over resamples of them."""
    found = data.statistics()[data.hook_names[0]]
    assert found.standard_error <= 0.02 * found.variance
    contexts, plan = data.contexts("train"), data._plan
    calls = CallTokens(contexts, plan)
    tokens = torch.cat([calls[call] for window in range(9) for call in plan.calls(window)])
    points = [read(data, row[None]).double() for row in tokens[: found.n_contexts]]
    whole = torch.cat(points)
    assert found.variance == pytest.approx(float(whole.var(0, correction=0).sum()), rel=1e-5)
    torch.testing.assert_close(found.mean, whole.mean(0).float())
    generator = torch.Generator().manual_seed(0)
    draws = []
    for _ in range(400):
        rows = torch.randint(len(points), (len(points),), generator=generator)
        drawn = torch.cat([points[row] for row in rows])
        draws.append(float(drawn.var(0, correction=0).sum()))
    assert found.standard_error == pytest.approx(float(torch.tensor(draws).std()), rel=0.15)
    monkeypatch.setattr("saerepgeo.data.statistics.STANDARD_ERROR", 0.0)
    most = data.statistics()[data.hook_names[0]]
    assert most.n_contexts >= min(contexts.n_contexts, 4096) > found.n_contexts


def test_statistics_without_text_are_those_of_the_labeled_points(tiny_data):
    data = ActivationDataModule(**tiny_data | {"concept_fraction": 1.0})
    x = data.points.train.residuals.double()
    found = data.statistics()[data.hook_names[0]]
    assert found.variance == pytest.approx(float(x.var(0, correction=0).sum()), rel=1e-6)
    assert found.n_contexts == len(x)


def test_sinks_are_left_out_and_counted_whatever_else_is_read(tiny_data, monkeypatch):
    """One position in 500 is a hundred times as long; no verdict depends on the call."""
    residuals = FrozenLM.residuals_by_hook

    def with_sinks(self, tokens, hook_names):
        found = residuals(self, tokens, hook_names)
        for at_hook in found.values():
            at_hook[tokens == 77] *= 100
        return found

    monkeypatch.setattr(FrozenLM, "residuals_by_hook", with_sinks)
    data = ActivationDataModule(**tiny_data | {"center_residuals": True, "cache_stream": False})
    sample = sample_contexts(data.tokenizer, 64)
    share = float((sample == 77).float().mean())
    assert 0 < share < 0.05, "token 77 is not as rare in the sample as the test needs"
    tokens = torch.randint(100, 250, (6, 16), generator=torch.Generator().manual_seed(0))
    tokens[2, 3:9] = 77
    tokens[tokens == 77] = 77
    points = read(data, tokens)
    n_sinks = int((tokens == 77).sum())
    assert (data.n_sinks, data.n_positions) == ({data.hook_names[0]: n_sinks}, 96)
    assert len(points) == 96 - n_sinks
    alone = [read(data, row[None]) for row in tokens]
    assert torch.cat(alone).shape == points.shape
    assert len(alone[2]) == 16 - n_sinks


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


HOOKS = ["blocks.2.hook_resid_post", "blocks.0.hook_resid_post", "blocks.1.hook_mlp_out"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_several_hooks_have_each_what_it_has_alone(tiny_data, monkeypatch, tmp_path, dtype):
    """Training, validation, statistics, labeled points; and their keys in the cache."""
    several = tiny_data | {"hook_name": HOOKS, "lm_dtype": dtype, "cache_stream": True}
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "own"))
    together = ActivationDataModule(**several)
    together.prepare_data()
    together.setup("fit")
    batches, loaders = list(islice(together.train_dataloader(), 4)), together.val_dataloader()
    for number, hook in enumerate(HOOKS):
        monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / hook))
        for own_cache in (hook, "own"):  # alone, and then from what several have left
            monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / own_cache))
            if own_cache == "own":
                monkeypatch.setattr("saerepgeo.data.lm_module.FrozenLM", None)
            alone = ActivationDataModule(**several | {"hook_name": hook})
            alone.setup("fit")
            for got, expected in zip(batches, islice(alone.train_dataloader(), 4), strict=True):
                assert list(got) == HOOKS
                assert all(x.equal(y) for x, y in zip(got[hook], expected, strict=True))
            theirs = loaders[3 * number : 3 * number + 3]
            for loader, expected in zip(theirs, alone.val_dataloader(), strict=True):
                for x, y in zip(loader, expected, strict=True):
                    assert x.residuals.equal(y.residuals)
            for x, y in zip(together.statistics()[hook], alone.statistics()[hook], strict=True):
                assert torch.equal(torch.as_tensor(x), torch.as_tensor(y))
        monkeypatch.setattr("saerepgeo.data.lm_module.FrozenLM", FrozenLM)
    assert not batches[0][HOOKS[0]].residuals.equal(batches[0][HOOKS[1]].residuals)


def test_one_pass_reads_only_the_hooks_that_are_not_on_disk(tiny_data, monkeypatch, tmp_path):
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path))
    tokens = torch.randint(100, 250, (2, 16), generator=torch.Generator().manual_seed(0))
    read, asked = FrozenLM.residuals_by_hook, []
    monkeypatch.setattr(
        FrozenLM,
        "residuals_by_hook",
        lambda self, x, names: (len(x) == 2 and asked.append(list(names))) or read(self, x, names),
    )
    ActivationDataModule(**tiny_data | {"hook_name": HOOKS[0]}).points_of(tokens, keep=True)
    data = ActivationDataModule(**tiny_data | {"hook_name": HOOKS})
    first = data.points_of(tokens, keep=True)
    again = data.points_of(tokens, keep=True)
    assert asked == [HOOKS[:1], HOOKS[1:]]
    assert all(first[hook].equal(again[hook]) for hook in HOOKS)
    assert data.n_lm_tokens == 32


@pytest.mark.parametrize(
    "other", ["hook", "dtype", "device", "torch", "transformers", "transformer-lens", None]
)
def test_activations_are_those_of_a_device_a_dtype_and_libraries(
    tiny_data, tmp_path, monkeypatch, other
):
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path))  # other tests read other hooks
    expected = ActivationDataModule(**tiny_data).concept("days")
    monkeypatch.setattr("saerepgeo.data.lm_module.FrozenLM", None)  # loading it fails
    monkeypatch.setattr(
        "saerepgeo.data.cache.version", lambda name: "0" if name == other else version(name)
    )
    if other == "device":
        monkeypatch.setattr(ActivationDataModule, "_device", torch.device("cuda"))
    changes = {"hook": {"hook_name": "blocks.0.hook_resid_post"}, "dtype": {"lm_dtype": "bfloat16"}}
    data = ActivationDataModule(**tiny_data | changes.get(other, {}))
    if other is None:
        assert data.concept("days").residuals.equal(expected.residuals)
        return
    with pytest.raises(AttributeError, match="'NoneType' object has no attribute 'load'"):
        data.concept("days")


def test_where_nothing_is_kept_text_is_tokenized_once(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path))
    monkeypatch.setenv("SAEREPGEO_CACHE_GIB", "0")
    seen, gathered = [], _Tokens._gathered
    monkeypatch.setattr(
        _Tokens, "_gathered", lambda tokens: seen.append(tokens.split) or gathered(tokens)
    )
    data = ActivationDataModule(**tiny_data)
    data.setup("fit")
    data.prepare_data()
    data.prepare_data()
    assert seen == ["train"]
    next(iter(data.train_dataloader()))
    for _ in range(2):
        data.heldout_contexts()
    assert seen == ["train", "heldout"]


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
        ({"hook_name": [*HOOKS, "blocks.7.hook_resid_post"]}, "layers 0 to 2"),
        ({"hook_name": []}, r"`hook_name` must be a hook or different ones, got \[\]"),
        ({"hook_name": HOOKS[:1] * 2}, "must be a hook or different ones"),
        ({"hook_name": [""]}, "each of `hook_name` must be text, not empty"),
        ({"hook_name": ""}, "`hook_name` must be text, not empty"),
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
