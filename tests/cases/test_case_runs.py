"""`test` runs: a signal stops them between draws, and the bar moves within a concept."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from saerepgeo.callbacks.interruption import Interruption
from saerepgeo.callbacks.within_concept import WithinConcept
from saerepgeo.cases.stratification.artifacts import StratificationArtifacts
from saerepgeo.cases.stratification.module import StratificationModule
from saerepgeo.report.files import read_rows
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import ConceptActivations
from tests.planted import PlantedData, planted_concept, save_isometric_sae


class Concepts:
    """Three concepts, of which only the name differs."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[ConceptActivations]:
        for name in ("first", "second", "third"):
            yield planted_concept()._replace(concept=name)


class Data(PlantedData):
    def test_dataloader(self) -> Any:
        return Concepts()


class SignalAt(Callback):
    """Sends this process a signal in the second draw of the second concept."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_analysis_step(self, trainer: Trainer, stage: Any) -> None:
        if stage.what.startswith("second") and stage.done == 2:
            os.kill(os.getpid(), self.number)


def run(folder: Path, *callbacks: Callback, bar: Callback | None = None) -> None:
    save_isometric_sae(folder / "sae")
    module = StratificationModule(
        SAESource(path=str(folder / "sae")), noise_levels=(0.0, 0.1), rules=("eps",)
    )
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=bar is not None,
        enable_model_summary=False,
        callbacks=[*callbacks, *([bar] if bar else [])],
        default_root_dir=folder,
    )
    trainer.test(module, datamodule=Data(), verbose=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_draws_and_keeps_finished_concepts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    stop, out = Interruption(), tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, SignalAt(number), stop, StratificationArtifacts(str(out)))
    assert stopped.value.code == 128 + number
    said = [line for line in capsys.readouterr().err.splitlines() if "stopped by" in line]
    assert said == [f"stopped by {number.name}; the results of 1 finished concepts are kept"]
    assert {row["concept"] for row in read_rows(out / "strata.csv")} == {"first"}
    assert not list(out.glob(".*.partial"))
    assert {each: signal.getsignal(each) for each in before} == before


def test_fit_wants_to_know_where_to_save() -> None:
    with pytest.raises(ValueError, match="needs `dirpath` in `fit`"):
        Interruption().on_train_start(Trainer(logger=False), LightningModule())


@pytest.mark.parametrize("kind", [RichProgressBar, TQDMProgressBar])
def test_the_bar_says_how_far_a_concept_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Any]
) -> None:
    monkeypatch.setattr("saerepgeo.callbacks.within_concept.INTERVAL", 0.0)
    seen: list[str] = []

    class Watch(Callback):
        def on_analysis_step(self, trainer: Trainer, stage: Any) -> None:
            bar: Any = trainer.progress_bar_callback
            shown = bar.test_progress_bar
            seen.append(shown.description if kind is RichProgressBar else shown.desc)

    bar = kind()
    run(tmp_path, WithinConcept(), Watch(), bar=bar)
    assert seen[0].startswith("first, noise   0%")
    assert any(text.startswith("second, noise  50%") for text in seen)
    assert seen[-1].startswith("third, noise 100%")
