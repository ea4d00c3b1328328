"""Input normalization in two real processes: trained as in one, and no state between calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from normalized_process import BATCH, CASES, WORLD, interleaved, make, train
from safetensors.torch import load_file
from torch.testing import assert_close

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote, each after the checks that it made itself."""
    target = tmp_path_factory.mktemp("normalized")
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "normalized_process", str(target), str(rank)],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return target


@pytest.mark.parametrize("mode", CASES)
def test_two_processes_train_as_one(folder: Path, mode: str) -> None:
    model = make(mode).train()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = train(model, model, slice(0, BATCH))
    assert losses[-1] < losses[0]
    ranks = [load_file(folder / f"{mode}_{rank}.safetensors") for rank in range(WORLD)]
    for name, expected in model.state_dict().items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        size = float(expected.norm())
        assert_close(ranks[0][name], expected, rtol=0.0, atol=1e-5 * max(size, 1.0), msg=name)
    moved = (ranks[0]["sae.W_dec"] - start["sae.W_dec"]).abs().max()
    assert float(moved) > 1e-3


@pytest.mark.parametrize("is_autocast", [False, True])
@pytest.mark.parametrize("mode", CASES)
@torch.no_grad()
def test_encodes_and_decodes_in_any_order(mode: str, is_autocast: bool) -> None:
    model = make(mode).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_autocast):
        checks = interleaved(model)
    assert all(found.equal(expected) for found, expected in checks)
    if is_autocast:  # in the units of the residuals, to the precision of bfloat16
        for (low, _), (exact, _) in zip(checks, interleaved(model), strict=True):
            assert float((low - exact).norm() / exact.norm()) < 0.05
