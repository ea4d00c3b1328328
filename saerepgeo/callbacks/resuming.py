"""What a checkpoint belongs to: going on from it with another run's settings is refused."""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from saerepgeo.callbacks.checkpoints import (
    DamagedCheckpoint,
    folders,
    last_whole,
    read_checkpoint,
)
from saerepgeo.data import ActivationDataModule
from saerepgeo.data.text import open_text
from saerepgeo.files import is_url
from saerepgeo.lm.sources import model_fingerprint
from saerepgeo.sae.sae_source import SAESource

_LOG = logging.getLogger("lightning.pytorch.utilities.rank_zero")
Facts = dict[str, Sequence[Any]]
"""`{setting: (value, content)}`: what is shown, and what decides whether two are the same."""
FREE = (
    "data.n_workers",
    "data.cache_stream",
    "data.validation_contexts",
    "data.test_with_padding",
    "data.lm_batch_size",
    "data.heldout_text",  # whether there is one matters, see `_data_facts`
    "model.sae",  # known by its config
    "model.saes",
)
"""Settings that change neither the batches nor the weights."""
OF_TRAINER = (
    "precision",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "accumulate_grad_batches",
)
OF_ANALYSES = ("data.lm", "data.hook_name", "data.center_residuals", "model.sae")
"""What weights from a checkpoint must agree with where they are not trained on."""


class Resumption(Callback):
    """Store in each checkpoint the facts of its run; end a run the same way, however often killed.

    Lightning skips all of a training whose last step is in the checkpoint. Here the hooks of the
    end still run, so that what a kill came before is written. After the last step there is always
    a validation, whatever the interval: the last figures are of the weights that are exported.
    """

    def __init__(self) -> None:
        self._facts: Facts | None = None
        self._max_steps: int | None = None
        self._validated_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            data = trainer.datamodule  # type: ignore[attr-defined]
            self._facts = run_facts(trainer, pl_module, data)

    def state_dict(self) -> dict[str, Any]:
        facts = self._facts or {}
        return {"facts": {name: list(map(_plain, fact)) for name, fact in facts.items()}}

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        is_done = 0 < trainer.max_steps <= checkpoint["global_step"]
        if trainer.state.fn == "fit" and is_done:
            self._max_steps = trainer.max_steps
            # one step more is left, so that Lightning begins; `on_train_start` takes it back
            trainer.fit_loop.epoch_loop.max_steps = checkpoint["global_step"] + 1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._validated_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate, before other callbacks write what they found; this one stands first."""
        is_done = 0 < trainer.max_steps <= trainer.global_step
        if is_done and self._validated_step != trainer.global_step:
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True


def checkpoint_to_load(
    path: str | Path,
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule | None,
    is_changed: bool = False,
    weights_only: bool | None = True,
    stage: str = "fit",
) -> str | Path | None:
    """Return the file that stands for `path`, checked; None where `last` finds none to go on from.

    `last` is the newest one that reads, in the folders of the callbacks. Raises ValueError with one
    line for a damaged or foreign file, and, unless it `is_changed` on purpose, one of another run.
    """
    if path in ("best", "hpc") or is_url(path):
        return path
    options, callbacks = (stage == "fit", weights_only), trainer.callbacks  # type: ignore[attr-defined]
    found: str | Path | None = path
    if path == "last":
        found, checkpoint, damages = last_whole(callbacks, *options)
        if found is None and (stage != "fit" or not folders(callbacks)):
            reason = "; ".join(damages) or "there is no checkpoint"
            raise ValueError(f"`--ckpt_path last` finds nothing: {reason}")
        goes_on = f"going on from {found}" if found else "starting anew"
        for damage in damages or ([] if found else ["there is no checkpoint yet"]):
            tell = rank_zero_only(_LOG.warning) if damages else rank_zero_info
            tell(f"{damage}; {goes_on}")
    else:
        try:
            checkpoint = read_checkpoint(path, *options)
        except DamagedCheckpoint as error:
            whole = last_whole(callbacks, *options)[0]
            advice = f"the newest whole one is {whole}" if whole else "there is no whole one"
            raise ValueError(f"{error}; {advice}") from error
    if found is not None and not is_changed:
        then, is_whole = facts_of(checkpoint)
        now = run_facts(trainer, module, data) if is_whole else own_settings(module, data)
        check_same_run(then, now, found, stage)
    return found


def run_facts(trainer: Trainer, module: LightningModule, data: LightningDataModule | None) -> Facts:
    """Return every setting that the trained weights depend on; contents in place of files' names.

    Reads configurations, prompts, texts and weights' fingerprints; loads no model.
    """
    facts = own_settings(module, data)
    facts |= {f"trainer.{name}": _same(getattr(trainer, name)) for name in OF_TRAINER}
    saes: Mapping[str, Any] = getattr(module, "trained", {})
    for name, trained in saes.items():
        facts[f"model.saes.{name}" if name else "model.sae"] = _sae_fact(trained.source)
        if name:
            own = vars(trained.settings) | {"hook_name": trained.hook_name}
            ours = {key: own[key] for key in own.keys() - vars(SAESource()).keys()}
            facts |= {f"model.saes.{name}.{key}": _same(value) for key, value in ours.items()}
            facts["model.saes"] = _same(list(saes))
    if isinstance(data, ActivationDataModule):
        facts |= _data_facts(data)
    return facts


def _sae_fact(source: SAESource) -> tuple[str, str]:
    config = source.read_config() | {"options": source.options, "scale": source.input_scale}
    config.pop("metadata", None)
    where = source.path or source.release or "new"
    return f"{config.get('architecture')} ({where})", _digest(config)


def facts_of(checkpoint: Mapping[str, Any]) -> tuple[Facts, bool]:
    """Return the facts of a checkpoint's run, and whether they are whole.

    Checkpoints of before facts were stored have the settings of module and data alone.
    """
    stored = checkpoint.get("callbacks", {}).get(Resumption.__qualname__, {}).get("facts")
    if stored:
        return stored, True
    keys = {"model": "hyper_parameters", "data": "datamodule_hyper_parameters"}
    return _settings({name: checkpoint.get(key) or {} for name, key in keys.items()}), False


def check_same_run(then: Facts, now: Facts, path: Any, stage: str = "fit") -> None:
    """Raise ValueError where facts differ, naming each setting with both values.

    Stages other than `fit` need the same SAE, model and hook.
    """
    differing = []
    for name in sorted(then.keys() & now.keys()):
        (old, old_content), (new, content) = then[name], now[name]
        if (stage == "fit" or name in OF_ANALYSES) and _plain(old_content) != _plain(content):
            told = " with other contents" if _plain(old) == _plain(new) else ""
            differing.append(f"`{name}` was {_shown(old)} and is {_shown(new)}{told}")
    if differing:
        raise ValueError(
            f"{path} belongs to another run: {'; '.join(differing)}; set them as they were, save "
            "into another folder, or insist with `--resume_changed true`"
        )


def own_settings(module: LightningModule, data: LightningDataModule | None) -> Facts:
    """Return the settings of module and data that are not free, as they are written."""
    return _settings({"model": module.hparams, "data": data.hparams if data is not None else {}})


def _settings(hparams: Mapping[str, Mapping[str, Any]]) -> Facts:
    found: Facts = {
        f"{place}.{name}": _same(value)
        for place, values in hparams.items()
        for name, value in values.items()
        if not name.startswith("_") and f"{place}.{name}" not in FREE
    }
    for place, values in hparams.items():
        if name := values.get("_class_path"):
            found[place] = _same(str(name).rpartition(".")[2])
    return found


def _data_facts(data: ActivationDataModule) -> Facts:
    h, prompts = data.hparams, data.prompts
    concepts = sorted((c.name, c.items, c.prompts, c.item_ids, c.mentions) for c in prompts)
    split = "every document" if h["heldout_text"] is not None else h["heldout_text_fraction"]
    facts: Facts = {
        "data.lm": (h["lm"], model_fingerprint(h["lm"])),
        "data.prompts": (h["prompts"], _digest(concepts)),
        "data.concepts": _same(list(prompts.names)),
        "data.heldout_text_fraction": _same(split),
    }
    if h["concept_fraction"] < 1:
        facts["data.text"] = (h["text"], open_text(h["text"]).fingerprint)
    return facts


def _same(value: Any) -> tuple[Any, Any]:
    return value, value


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: what a checkpoint may hold, and what compares."""
    return json.loads(json.dumps(value, default=str))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _shown(value: Any) -> str:
    text = ascii(_plain(value))
    return text if len(text) < 80 else f"{text[:76]} …"
