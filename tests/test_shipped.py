"""What is shipped is found by name from anywhere; a file of the user's own goes before it."""

from pathlib import Path
from typing import Any

import pytest

from saerepgeo.experiment.grid import Experiment
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.shipped import CONFIGS, config_file, config_names, located

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_configuration_has_a_name() -> None:
    files = {str(path) for path in (ROOT / "configs").rglob("*.yaml")}
    assert {config_file(name) for name in config_names()} == files
    for name in ("case3", "configs/case3", "configs/case3.yaml", "./configs/case3.yaml"):
        assert config_file(name) == str(CONFIGS / "case3.yaml")
    assert config_file("configs/models/gpt2-small.yaml") == config_file("models/gpt2-small")
    for name in ("nothing", "../configs/case3.yaml", "/configs/case3.yaml", "", "a\0b", "a" * 300):
        assert config_file(name) == name


def test_a_file_of_ones_own_goes_before(elsewhere: Path) -> None:
    own = elsewhere / "configs" / "case3.yaml"
    own.parent.mkdir()
    own.write_text("trainer: {max_steps: 3}\n")
    assert config_file("configs/case3.yaml") == "configs/case3.yaml"
    assert config_file("configs/case2.yaml") == str(CONFIGS / "case2.yaml")
    (elsewhere / "case3").mkdir()  # results, for all we know
    assert config_file("case3") == str(CONFIGS / "case3.yaml")
    sae = "checkpoints/smollm2-135m"
    assert located(sae) == ROOT / sae
    assert SAESource(path=sae).read_config()["d_sae"] == 4608
    (elsewhere / sae).mkdir(parents=True)
    assert located(sae) == Path(sae)
    for other in ("smollm2-135m", "checkpoints/none", "saerepgeo", "checkpoints/../saerepgeo"):
        assert located(other) == Path(other)


def test_the_base_of_an_experiment_may_be_a_name(elsewhere: Path) -> None:
    def grid(**settings: Any) -> Experiment:
        of_cells = {"regularizers": ["aedp"], "doses": [0.1], "seeds": [0]}
        return Experiment(output=str(elsewhere / "out"), **of_cells, **settings)

    named, written = grid(base="case3"), grid(base="configs/case3.yaml")
    assert [named.folder(c) for c in named.cells] == [written.folder(c) for c in written.cells]
    assert f"--config={CONFIGS / 'case3.yaml'}" in named.command(named.cells[0])
    assert named._base_texts[1], "the shipped SAE's contents count, wherever we are"
    with pytest.raises(ValueError, match=r"`base`: case33 cannot be read.*did you mean case3"):
        grid(base="case33")
