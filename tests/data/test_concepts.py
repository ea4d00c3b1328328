"""Labeled points sit at the item's last token; held-out parts share nothing with training."""

from pathlib import Path
from typing import Any

import pytest
import torch

from saerepgeo.data.cache import LMSettings
from saerepgeo.data.concepts import (
    batches_by_length,
    concept_activations,
    split_points,
)
from saerepgeo.data.prompts import load_prompts
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.tokenizer import LMTokenizer

HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def lm(tiny_lm: Path) -> FrozenLM:
    return FrozenLM.load(str(tiny_lm), HOOK, "float32")


@pytest.fixture(scope="module")
def settings(tiny_lm: Path) -> LMSettings:
    return LMSettings(str(tiny_lm), HOOK, "None", False, "cpu", "")


@pytest.fixture(scope="module")
def prompts() -> Any:
    return load_prompts(concepts=["months", "days"])


@pytest.fixture(scope="module")
def activations(prompts, settings, lm) -> Any:
    return [concept_activations(concept, settings, lambda: lm) for concept in prompts]


def test_a_prompts_residuals_are_the_models(lm, prompts, activations):
    months = activations[0]
    for row in (0, 17, 80):
        tokens, spans = lm.tokenizer.encode([prompts["months"].prompts[row]])
        n = len(spans[0])
        torch.testing.assert_close(months.residuals[row, :n], lm.residuals(tokens)[0])
        assert months.is_real[row].tolist() == [0 < i < n for i in range(months.tokens.shape[1])]
        assert (months.residuals[row, n:] == 0).all()


def test_padding_is_run_only_when_asked_for(lm, prompts, settings, activations):
    days = prompts["days"]
    padded = concept_activations(days, settings, lambda: lm, with_padding=True)
    real = padded.is_real
    torch.testing.assert_close(padded.residuals[real], activations[1].residuals[real])
    assert (padded.residuals.norm(dim=-1) > 0).all()


def test_less_than_a_tenth_of_what_the_model_runs_over_is_padding():
    tokenizer = LMTokenizer.load("smollm2-135m")
    for concept in load_prompts():
        _, spans = tokenizer.encode(concept.prompts)
        lengths = torch.tensor([len(span) for span in spans])
        calls = batches_by_length(lengths)
        assert torch.cat(calls).sort().values.equal(torch.arange(len(lengths)))
        run = sum(len(rows) * int(lengths[rows].max()) for rows in calls)
        share = 1 - int(lengths.sum()) / run
        print(f"{concept.name}: {share:.1%}")
        assert share < 0.1, concept.name


def test_a_point_is_the_last_token_of_the_items_mention(lm, prompts, activations):
    for concept, activation in zip(prompts, activations, strict=True):
        for row in range(len(concept.prompts)):
            upto = activation.tokens[row, 1 : activation.item_positions[row] + 1]
            text = lm.tokenizer.tokenizer.decode(upto)
            start, end = concept.mentions[row]
            assert text.endswith(concept.prompts[row][start:end])


def test_the_second_time_comes_from_disk(prompts, settings, activations):
    def refuse() -> FrozenLM:
        raise AssertionError("the model was asked for")

    again = concept_activations(prompts["months"], settings, refuse)
    assert again.residuals.equal(activations[0].residuals)
    with pytest.raises(AssertionError, match="asked for"):
        concept_activations(prompts["months"], settings._replace(dtype="other"), refuse)


def test_parts_are_disjoint(prompts, activations):
    parts = split_points(activations, prompts, 0.2, 0.25, seed=0)
    train, heldout, items = (set(p.labels.tolist()) for p in parts)
    assert not train & items
    assert not heldout & items
    assert heldout <= train
    assert len(items & set(range(12))) == 2
    assert len(items & set(range(12, 19))) == 2
    rows = [{tuple(r.tolist()) for r in part.residuals} for part in parts]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    total = sum(len(part.labels) for part in parts)
    assert total == len(set.union(*rows))  # every distinct point is in one part


def test_labels_and_concepts_belong_together(prompts, activations):
    for part in split_points(activations, prompts, 0.2, 0.25, seed=1):
        assert (part.concepts == (part.labels >= 12)).all()


def test_the_split_depends_on_the_seed_alone(prompts, activations):
    a, b, c = (split_points(activations, prompts, 0.2, 0.25, seed) for seed in (0, 0, 1))
    assert a.train.labels.equal(b.train.labels)
    assert not a.heldout_items.labels.unique().equal(c.heldout_items.labels.unique())


def test_nothing_is_held_out_where_nothing_is_asked(prompts, activations):
    parts = split_points(activations, prompts, 0.0, 0.0, seed=0)
    assert len(parts.heldout_prompts.labels) == len(parts.heldout_items.labels) == 0


@pytest.mark.parametrize(("items", "points"), [(1.0, 0.1), (0.1, -0.1)])
def test_fractions_are_checked(prompts, activations, items, points):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        split_points(activations, prompts, items, points, 0)
