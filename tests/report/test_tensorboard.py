"""The event file of a run: what each tab of TensorBoard will find in it."""

import math
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from saerepgeo.cases.separability.module import SeparabilityModule
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.report.tensorboard import OF_RUNS, TensorBoard
from saerepgeo.sae.sae_source import SAESource


def events_of(logger: TensorBoard) -> EventAccumulator:
    logger.finalize("success")
    return EventAccumulator(logger.log_dir).Reload()


@pytest.mark.filterwarnings("ignore::Warning")  # Lightning's advice
def test_a_fit_compares_runs_and_sets_separability_beside_reconstruction(
    tmp_path: Path, tiny_data: dict[str, Any]
) -> None:
    logger = TensorBoard(str(tmp_path), "logs")
    trainer = Trainer(
        accelerator="cpu",
        logger=logger,
        default_root_dir=tmp_path,
        max_steps=2,
        max_epochs=-1,
        val_check_interval=1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=-1,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    source = SAESource(architecture="topk", d_in=32, d_sae=64, options={"k": 4})
    trainer.fit(SeparabilityModule(source), datamodule=ActivationDataModule(**tiny_data))
    of_fit = events_of(logger)
    tags = of_fit.Tags()["scalars"]
    assert "epoch" not in tags
    for tag in ("train/mse", "val/mse", "val/relative_aedp"):
        assert all(math.isfinite(point.value) for point in of_fit.Scalars(tag)), tag
    assert len(of_fit.Scalars("val/mse")) == 3  # one before training
    content = of_fit.PluginTagToContent("hparams")
    experiment = plugin_data_pb2.HParamsPluginData.FromString(
        content["_hparams_/experiment"]
    ).experiment
    assert {info.name.tag for info in experiment.metric_infos} == set(OF_RUNS)
    names = {info.name for info in experiment.hparam_infos}
    assert {"regularizer", "weight", "hook_name", "data_seed"} <= names
    (event,) = of_fit.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    (category,) = layout.category
    charts = {chart.title: set(chart.multiline.tag) for chart in category.chart}
    assert {"train/mse", "val/mse"} <= charts["mse"]
    for title, curves in charts.items():
        assert curves & set(tags), f"{title} would be empty"


def test_figures_of_test_are_a_table_and_no_curves(tmp_path: Path) -> None:
    logger = TensorBoard(str(tmp_path), "logs")
    logger.log_metrics({"test/two_nn/days": 3.25, "test/cka/days": math.nan, "epoch": 0}, 0)
    events = events_of(logger)
    assert not events.Tags()["scalars"]
    (event,) = events.Tensors("figures of test/text_summary")
    assert event.tensor_proto.string_val[0].decode().splitlines()[2:] == ["| two_nn/days | 3.25 |"]
