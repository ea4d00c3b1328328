"""`compare`: what SAEs share changes no figure and is computed once."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_comparison import ONE, TWO, changed, metrics, rows_at

from saerepgeo.experiment.compare import across, main, one_sae, settings
from saerepgeo.experiment.compare.listing import listed_saes
from saerepgeo.experiment.compare.shared import Work, shared
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.report.results import read_results

# Lightning's advice and jsonargparse's remarks: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")


def test_an_sae_in_a_list_has_the_rows_of_one_call_that_another_process_could_make(
    config: Path,
) -> None:
    """The second SAE of a hook alone, its residuals its own, its arguments sent as bytes."""
    assert main(["--config", str(config)]) == 0
    comparison, data, _ = settings.parse(["--config", str(config)])
    facts = Work(comparison, data, ()).data(ONE).model_facts
    _, many, deep = listed_saes(comparison.saes, data, facts)
    work = Work(comparison, data, (deep.hook_name, many.hook_name))
    sent: Any = pickle.loads(pickle.dumps((many, work)))
    assert sent[1] == work
    found = one_sae.rows_of(*sent)
    own = [row for row in rows_at(config) if row["hook"] == ONE and row["sae"] in ("", "many")]
    own = [row for row in own if row["space"] != across.SPACE]
    assert sorted(map(str, found)) == sorted(map(str, own))
    assert {row["sae"] for row in one_sae.rows_of(*sent, [{"sae": "", "of": "residuals"}])[1:]} == {
        "many"
    }
    shared.cache_clear()


class Passes:
    """Which tokens went through the language model at which hooks, and how it was loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[tuple[Any, tuple[str, ...]]] = []
        self.clean: list[Any] = []
        self.n_loaded = 0
        residuals, losses, load = (
            FrozenLM.residuals_by_hook,
            FrozenLM.token_losses,
            FrozenLM.load.__func__,
        )

        def read(lm: FrozenLM, tokens: Any, hooks: Any) -> Any:
            self.read.append((tokens.tolist(), tuple(hooks)))
            return residuals(lm, tokens, hooks)

        def lose(lm: FrozenLM, tokens: Any, *splice: Any) -> Any:
            self.clean += [] if splice else [tokens.tolist()]
            return losses(lm, tokens, *splice)

        def loaded(*args: Any) -> FrozenLM:
            self.n_loaded += 1
            return load(*args)

        monkeypatch.setattr(FrozenLM, "residuals_by_hook", read)
        monkeypatch.setattr(FrozenLM, "token_losses", lose)
        monkeypatch.setattr(FrozenLM, "load", classmethod(loaded))


@pytest.mark.parametrize("kept", ["on disk", "nowhere", "too little room", "no stream"])
def test_the_language_model_is_loaded_once_and_one_pass_reads_all_hooks(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    room = {"nowhere": "0", "too little room": "0.00003"}.get(kept, "1")  # GiB: one file or two
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAEREPGEO_CACHE_GIB", room)
    given = yaml.safe_load(config.read_text())
    data = given["data"] | {"cache_stream": kept != "no stream"}
    few = {"n_random": 0, "metrics": metrics("SpectralRanks"), "n_contexts": 0, "data": data}
    passes = Passes(monkeypatch)
    assert main(["--config", str(changed(config, **few))]) == 0
    assert passes.n_loaded == 1
    assert {hooks for _, hooks in passes.read} == {(ONE, TWO)}
    read = [str(row) for tokens, _ in passes.read for row in tokens]
    assert len(read) == len(set(read)) > 20
    if kept == "on disk":  # under the keys of a run at that hook alone
        alone = changed(config, saes=given["saes"][2:], output=str(tmp_path / "alone"))
        assert main(["--config", str(alone)]) == 0
        assert passes.n_loaded == 1


def test_the_model_as_it_is_runs_once_for_all_losses(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"n_random": 0, "metrics": metrics("SpectralRanks"), "n_contexts": 8}
    expected = {}
    for room in ("1", "0"):
        monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / f"cache {room}"))
        monkeypatch.setenv("SAEREPGEO_CACHE_GIB", room)
        with monkeypatch.context() as patch:
            passes = Passes(patch)
            assert main(["--config", str(changed(config, output=str(tmp_path / room), **few))]) == 0
            assert len(passes.clean) == 2  # of four contexts each
        expected[room] = read_results(tmp_path / room / "results.csv")
    assert str(expected["0"]) == str(expected["1"])
    monkeypatch.setattr(FrozenLM, "clean_losses", FrozenLM.token_losses)  # for each SAE anew
    assert main(["--config", str(changed(config, output=str(tmp_path / "anew")))]) == 0
    assert str(read_results(tmp_path / "anew" / "results.csv")) == str(expected["0"])
