"""`compare`: which SAEs a list names, and the shipped list."""

from pathlib import Path

import pytest

from saerepgeo.experiment.compare import settings
from saerepgeo.experiment.compare.listing import ComparedSAE
from saerepgeo.sae.io.registry import matching_saes

REPOSITORY = Path(__file__).parents[3]


def test_releases_by_regular_expression() -> None:
    found = matching_saes("gpt2-small-res-jb", r"blocks\.(8|9)\.hook_resid_pre")
    assert found == [("gpt2-small-res-jb", f"blocks.{n}.hook_resid_pre") for n in (8, 9)]
    assert len(matching_saes(r"pythia-70m-deduped-(res|mlp)-sm", r"blocks\.5\..*")) == 2
    exact = "blocks.8.hook_resid_pre"
    assert matching_saes("gpt2-small-res-jb", exact) == [("gpt2-small-res-jb", exact)]
    assert matching_saes("owner/name", "folder") == [("owner/name", "folder")]
    with pytest.raises(ValueError, match=r"the nearest of 13 are: blocks\.8"):
        matching_saes("gpt2-small-res-jb", "blocks.8.hook_resid_prr")
    with pytest.raises(ValueError, match=r"nearest registered are: .*gpt2-small-res-jb"):
        matching_saes("gpt2-small-res-jbb", ".*")


def test_the_shipped_configuration_is_a_valid_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    comparison, data, _ = settings.parse(["--config", "configs/compare.yaml"])
    assert data["concepts"] == ["months", "days", "elements"]
    assert all(isinstance(each, ComparedSAE) for each in comparison.saes)
    own = ["--saes", "[{path: a}, {path: b}]"]
    comparison, *_ = settings.parse(["--config", "configs/compare.yaml", *own])
    assert comparison.saes == [ComparedSAE(path="a"), ComparedSAE(path="b")]
    first = Path("configs/compare.yaml").read_text().splitlines()[0]
    assert first == "# python -m saerepgeo compare --config configs/compare.yaml"


def test_the_family_has_its_repeats_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    comparison, _, _ = settings.parse(["--config", "configs/family_compare.yaml"])
    names = [Path(str(each.path)).name for each in comparison.saes]
    assert len(set(names)) == len(names) >= 12
    assert [each.group for each in comparison.saes] == [name[: -len("_s0")] for name in names]
    first = Path("configs/family_compare.yaml").read_text().splitlines()[0]
    assert first.startswith("# python -m saerepgeo compare --config configs/family_compare.yaml")
