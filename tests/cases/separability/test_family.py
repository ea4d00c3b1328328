"""Many SAEs in one pass: each ends as if it had been trained alone."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from saerepgeo.callbacks import LMLoss, SAEExport
from saerepgeo.callbacks.interruption import exit_status
from saerepgeo.cases import SAEFamilyModule, SeparabilityModule
from saerepgeo.cases.separability.family import FamilySAE
from saerepgeo.data import ActivationDataModule
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.sae_source import SAESource

HOOKS = ["blocks.2.hook_resid_post", "blocks.0.hook_mlp_out"]
STEPS = 7
NEW = {"d_in": 32, "d_sae": 96, "lr": 1e-2, "warmup_steps": 2}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums of several threads are another's to the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sae") / "topk"
    return save_sae(new_sae("topk", d_in=32, d_sae=64, k=3, seed=5), path)


def three(folder: Path) -> list[dict[str, Any]]:
    """Return settings that differ in all that can differ."""
    topk = {"name": "topk", "architecture": "topk", "options": {"k": 4}, "hook_name": HOOKS[0]}
    loaded = {"name": "loaded", "path": str(folder), "hook_name": HOOKS[1], "seed": 4, "lr": 5e-3}
    loaded |= {"regularizer": "gromov_wasserstein", "weight": 0.7, "shuffle_labels": True}
    batch = {"name": "batch-k3", "architecture": "batchtopk", "options": {"k": 3}, "seed": 3}
    batch |= {"hook_name": HOOKS[0], "weight": 0.0, "dead_after": 100, "decay_fraction": 0.5}
    return [NEW | topk, loaded, NEW | batch]


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    times = {"max_steps": STEPS, "max_epochs": -1, "val_check_interval": 3}
    times |= {"check_val_every_n_epoch": None, "log_every_n_steps": 1}
    settings = {"gradient_clip_val": 0.5, "enable_checkpointing": False} | settings
    settings |= {"default_root_dir": folder, "accelerator": "cpu"}
    return Trainer(**quiet | times | settings)


def family(saes: list[dict[str, Any]], data: dict[str, Any], run: Trainer) -> SAEFamilyModule:
    module = SAEFamilyModule([FamilySAE(**sae) for sae in saes])
    hooks = list(dict.fromkeys(sae["hook_name"] for sae in saes))
    hook_name = hooks if len(hooks) > 1 else hooks[0]
    run.fit(module, datamodule=ActivationDataModule(**data | {"hook_name": hook_name}))
    return module


def alone(sae: dict[str, Any], data: dict[str, Any], run: Trainer) -> SeparabilityModule:
    own = vars(SAESource()).keys() & sae.keys()
    others = {key: sae[key] for key in sae.keys() - own - {"name", "hook_name"}}
    module = SeparabilityModule(SAESource(**{key: sae[key] for key in own}), **others)
    run.fit(module, datamodule=ActivationDataModule(**data | {"hook_name": sae["hook_name"]}))
    return module


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_each_ends_as_if_it_were_trained_alone(tiny_data, folder, tmp_path, precision):
    if precision == "bf16-mixed":
        tiny_data["lm_dtype"] = "bfloat16"
    run = trainer(tmp_path, precision=precision, callbacks=[SAEExport(str(tmp_path / "saes"))])
    module = family(three(folder), tiny_data, run)
    figures = {name: float(value) for name, value in run.callback_metrics.items()}
    for sae in three(folder):
        name = sae["name"]
        own = trainer(tmp_path, precision=precision)
        expected = alone(sae, tiny_data, own).state_dict()
        found = module.trained[name].state_dict()
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            assert found[key].equal(tensor), f"{name} {key}"
        assert len(own.callback_metrics) > 20
        for key, value in own.callback_metrics.items():
            assert figures[f"{name}/{key}"] == float(value), f"{name} {key}"
        exported = sae_lens().SAE.load_from_disk(tmp_path / "saes" / name)
        assert exported.cfg.metadata.hook_name == sae["hook_name"]
        points = torch.randn(20, 32)
        torch.testing.assert_close(exported(points), module.trained[name].sae.eval()(points).recons)
    assert exit_status(run) == 0


def test_one_that_is_no_longer_finite_is_left_out(tiny_data, folder, tmp_path, caplog):
    wild = NEW | {"name": "wild", "architecture": "standard", "lr": 1e30, "hook_name": HOOKS[0]}
    good = three(folder)[0]
    logger = TensorBoardLogger(tmp_path, name=None, version="", default_hp_metric=False)
    run = trainer(tmp_path, callbacks=[SAEExport(str(tmp_path / "saes"))], logger=logger)
    with warnings.catch_warnings(), caplog.at_level("INFO"):
        warnings.filterwarnings("ignore")
        module = family([wild, good], tiny_data, run)
    assert module.left_out == ["wild"]
    assert sum("SAE wild: the" in line and "is left out" in line for line in caplog.messages) == 1
    assert [path.name for path in (tmp_path / "saes").iterdir()] == ["topk"]
    assert exit_status(run) == 2
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"topk/train/mse", "topk/val/fvu", "wild/train/mse"} <= set(events.Tags()["scalars"])
    (layout,) = events.Tensors("custom_scalars__config__")
    assert b"^topk/train/mse$" in layout.tensor_proto.string_val[0]
    expected = alone(good, tiny_data, trainer(tmp_path)).state_dict()
    found = module.trained["topk"].state_dict()
    assert all(found[key].equal(tensor) for key, tensor in expected.items())


def test_where_none_is_finite_the_run_ends(tiny_data, folder, tmp_path):
    wild = NEW | {"architecture": "standard", "lr": 1e30, "hook_name": HOOKS[0]}
    saes = [wild | {"name": name} for name in ("a", "b")]
    with pytest.raises(ValueError, match=r"SAE b: the .* lower `lr` or `weight` and go on"):
        family(saes, tiny_data, trainer(tmp_path))


def test_losses_of_the_language_model_are_of_one_sae(tiny_data, folder, tmp_path):
    run = trainer(tmp_path, callbacks=[LMLoss(2)])
    with pytest.raises(ValueError, match="LMLoss reads one SAE"):
        family(three(folder), tiny_data, run)
