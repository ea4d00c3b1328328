"""The commands run on a device other than the CPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from emulated_device import active
from training_process import write_config

from saerepgeo.cli import main
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae

# Lightning's advice and jsonargparse's remarks on Lightning: the command line shows what matters
pytestmark = pytest.mark.filterwarnings("ignore::Warning")
ON_DEVICE = ("--trainer.accelerator", "emulated", "--trainer.strategy", "emulated")


@pytest.fixture(autouse=True)
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The emulated device, and a cache that no other test reads."""
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["saerepgeo"])
    with active() as found:
        yield found


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    return save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path / "topk")


def test_a_fit(tmp_path: Path, tiny_data: dict[str, Any], sae: Path) -> None:
    config = write_config(tmp_path, tiny_data, sae, 4)
    assert main(["fit", "--config", str(config), *ON_DEVICE]) == 0
