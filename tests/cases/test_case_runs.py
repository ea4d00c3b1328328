"""`test` runs: a signal stops them after a step, and the bar counts the steps."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar

from saerepgeo.callbacks.interruption import Interruption
from saerepgeo.cases.stratification.artifacts import StratificationArtifacts
from saerepgeo.cases.stratification.module import StratificationModule
from saerepgeo.metrics import TensorRanks
from saerepgeo.report.files import read_rows
from saerepgeo.sae.sae_source import SAESource
from tests.planted import PlantedData, save_isometric_sae


class Data(PlantedData):
    names = ("first", "second", "third")


class SignalAt(Callback):
    """Sends this process a signal in the second step of the second concept."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_test_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        if batch.activations.concept == "second" and batch.part == pl_module.parts[1]:
            os.kill(os.getpid(), self.number)


def run(folder: Path, *callbacks: Callback, bar: Callback | None = None) -> None:
    save_isometric_sae(folder / "sae")
    module = StratificationModule(
        SAESource(path=str(folder / "sae")),
        noise_levels=(0.0, 0.1),
        metrics=[TensorRanks(("eps",))],
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
def test_a_signal_stops_after_a_step_and_keeps_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    stop, out = Interruption(), tmp_path / "out"
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, SignalAt(number), stop, StratificationArtifacts(str(out)))
    assert stopped.value.code == 128 + number
    said = [line for line in capsys.readouterr().err.splitlines() if "stopped by" in line]
    assert said == [f"stopped by {number.name}; what 5 finished steps found is kept"]
    assert {row["concept"] for row in read_rows(out / "strata.csv")} == {"first"}
    kept = {(row["concept"], row["space"]) for row in read_rows(out / "results.csv")}
    second = {space for concept, space in kept if concept == "second"}
    assert second == {f"{name}+absolute:0.0:0" for name in ("residuals", "latents", "random")}
    assert not list(out.glob(".*.partial"))
    assert {each: signal.getsignal(each) for each in before} == before


def test_fit_wants_to_know_where_to_save() -> None:
    with pytest.raises(ValueError, match="needs `dirpath` in `fit`"):
        Interruption().setup(Trainer(logger=False), LightningModule(), "fit")


@pytest.mark.parametrize("kind", [RichProgressBar, TQDMProgressBar])
def test_the_bar_counts_the_steps(tmp_path: Path, kind: type[Any]) -> None:
    bar = kind()
    seen: list[int] = []

    class Watch(Callback):
        def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
            seen.append(trainer.num_test_batches[0])

    run(tmp_path, Watch(), bar=bar)
    assert seen == [12] * 12, "three concepts, two noise scales, two levels"
