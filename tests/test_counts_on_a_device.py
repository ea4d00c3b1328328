"""What a training step asks of a device: how often the host waits, and how many operations.

`pytest -s` prints the counts that stand in the benchmarks' README.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import WORDS
from emulated_counts import Counts, counted
from lightning.pytorch import Callback, Trainer

from saerepgeo.cases.separability.module import SeparabilityModule
from saerepgeo.data.module import ActivationDataModule
from saerepgeo.sae.sae_source import SAESource

pytestmark = pytest.mark.filterwarnings("ignore::Warning")
REGULARIZERS = ("aedp", "fisher", "debiased_aedp", "debiased_fisher", "gromov_wasserstein")


@pytest.mark.parametrize(
    ("work", "n_waits"),
    [
        (lambda x: float(x[0]), 1),
        (lambda x: bool((x > 0).any()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x[x > 0], 1),
        (lambda x: (x > 0).nonzero(), 1),
        (lambda x: x[[0, 1]], 1),
        (lambda x: x[torch.tensor([0, 1])], 1),
        (lambda x: torch.tensor([1.0], device=x.device), 1),
        (lambda x: torch.ones(3).to(x.device), 1),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), 0),
        (lambda x: x.copy_(torch.ones(3)), 1),
        (lambda x: torch.bincount(x.long()), 2),
        (lambda x: x.clone().requires_grad_().square().sum().backward(), 0),
        (lambda x: x[x.argmax()], 1),
        (lambda x: torch.where(x > 0, x, 0.0).topk(2), 0),
        (lambda x: torch.ones(3).tolist(), 0),
    ],
)
def test_waits_are_counted(work: Any, n_waits: int, emulated: torch.device) -> None:
    x = torch.arange(3.0).to(emulated)
    with counted() as counts:
        work(x)
    assert counts.n_waits == n_waits, counts


class CountSteps(Callback):
    """Count every training step, from its batch to the step of the optimizer."""

    def __init__(self) -> None:
        self.steps: list[Counts] = []
        self._open = ExitStack()

    def on_train_batch_start(self, *_: Any) -> None:
        self.steps.append(self._open.enter_context(counted()))

    def on_train_batch_end(self, *_: Any) -> None:
        self._open.close()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all: the language model is loaded once for each number of concepts."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def data(
    tmp_path: Path, cache: Path, tiny_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Return a function from a number of concepts to the data module's arguments."""
    monkeypatch.setenv("SAEREPGEO_CACHE", str(cache))
    for name in ("log", "log_dict"):  # what is logged is read by the host when it is shown
        monkeypatch.setattr(SeparabilityModule, name, lambda *_, **__: None)

    def of(n_concepts: int) -> dict[str, Any]:
        groups = [WORDS[start : start + 3] for start in range(0, 3 * n_concepts, 3)]
        prompts = {
            f"concept {number}": {
                "items": items,
                "prompts": [f"{start} {item}." for item in items for start in ("A", "So the")],
            }
            for number, items in enumerate(groups)
        }
        path = tmp_path / "prompts.json"
        path.write_text(json.dumps(prompts))
        sizes = {"batch_size": 128, "concept_fraction": 0.5, "heldout_prompts": 0.0}
        return tiny_data | sizes | {"prompts": str(path), "concepts": None}

    return of


def steps(settings: dict[str, Any], folder: Path, **model: Any) -> list[Counts]:
    counts = CountSteps()
    trainer = Trainer(
        accelerator="emulated",
        strategy="emulated",
        max_steps=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        limit_val_batches=0,
        gradient_clip_val=1.0,
        callbacks=[counts],
        default_root_dir=folder,
    )
    trainer.fit(SeparabilityModule(**model), datamodule=ActivationDataModule(**settings))
    return counts.steps


@pytest.mark.parametrize(
    ("architecture", "regularizer"),
    [*(("topk", regularizer) for regularizer in REGULARIZERS), ("batchtopk", "aedp")],
)
def test_a_step_waits_twice_at_most_however_many_concepts(
    architecture: str, regularizer: str, data: Any, tmp_path: Path, emulated: torch.device
) -> None:
    """Some latents are dead, which takes more operations than if none is."""
    sae = SAESource(architecture=architecture, d_in=32, d_sae=96, options={"k": 4})
    model = {"sae": sae, "regularizer": regularizer, "dead_after": 1}
    of_3, of_9 = (steps(data(n), tmp_path, **model)[-1] for n in (3, 9))
    for counts in (of_3, of_9):
        print(architecture, regularizer, dict(counts.waits), counts.n_operations)
    assert of_3.n_waits == of_9.n_waits <= 2
    # to revive more dead latents than k_aux takes a few more
    assert abs(of_9.n_operations - of_3.n_operations) < 10
    assert of_9.n_operations < (380 if regularizer == "debiased_aedp" else 320)
    assert of_9.largest <= 128 * 96  # the latents, as a dense tensor
    assert not of_9.names.keys() & {"_pdist_backward", "_cdist_backward"}


def test_a_batch_waits_for_the_number_of_its_points_alone(
    tiny_data: dict[str, Any], emulated: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in the language model's own code, and once to leave out special positions and sinks."""
    monkeypatch.setattr(ActivationDataModule, "_device", emulated)
    sizes = {"cache_stream": False, "window_steps": 4}  # one call of the model a batch
    data = ActivationDataModule(**tiny_data | sizes)
    batches = iter(data.stream)
    next(batches)  # a whole window
    for _ in range(4):
        before = data.n_lm_tokens
        with counted() as counts:
            next(batches)
        assert data.n_lm_tokens > before
        assert counts.n_waits <= 2, counts.waits
