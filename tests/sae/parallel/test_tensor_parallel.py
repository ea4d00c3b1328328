"""An SAE divided between two real processes: every number and gradient as in one."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensor_parallel_process import CASES, dense, gradients_of, loss_of, make, points_of
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.parallel.tensor_parallel import check_run, shard, unshard

WORLD = 2
Found = list[dict[str, Tensor]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of two processes computed, by case."""
    folder = tmp_path_factory.mktemp("split")
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tensor_parallel_process"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(WORLD), str(folder)],
            env=environment,
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
    return [load_file(folder / f"{rank}.safetensors") for rank in range(WORLD)]


def of_case(found: Found, rank: int, name: str) -> dict[str, Tensor]:
    return {k.split("/")[1]: v for k, v in found[rank].items() if k.startswith(f"{name}/")}


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(found: Found, name: str) -> None:
    case, model = CASES[name], make(CASES[name])
    shares = points_of(case)
    losses = []
    for rank, points in enumerate(shares):
        loss, out = loss_of(model, points, case)
        mine = of_case(found, rank, name)
        assert_close(mine["loss"], loss.detach())
        assert_close(mine["recons"], out.recons.detach())
        assert_close(mine["latents"], dense(out.latents))
        losses.append(loss)
    (sum(losses) / len(losses)).backward()
    expected = gradients_of(model)
    assert expected.keys() == {"W_enc", "b_enc", "W_dec", "b_dec"}
    for rank in range(len(shares)):
        mine = of_case(found, rank, name)
        for parameter, gradient in expected.items():
            assert bool(gradient.abs().max() > 0)
            assert_close(mine[parameter], gradient, rtol=1e-10, atol=1e-10, msg=parameter)
        assert_close(mine["norms"], model.decoder_norms().detach())


@pytest.mark.parametrize("name", ["plain", "free norms"])
def test_decoder_constraint_equals_that_of_one_process(found: Found, name: str) -> None:
    case, model = CASES[name], make(CASES[name])
    (sum(loss_of(model, p, case)[0] for p in points_of(case)) / WORLD).backward()
    model.remove_parallel_gradient_()
    model.normalize_decoder_()
    assert_close(of_case(found, 1, name)["projected"], model.sae.W_dec.grad)
    assert_close(of_case(found, 0, name)["normalized"], model.sae.W_dec.detach())


def mesh_of(data_parallel: int, tensor_parallel: int) -> Any:
    """Stand for the sizes of a mesh: what is refused is refused before anything is sent."""

    class Mesh(dict[str, Any]):
        def size(self) -> int:
            return data_parallel * tensor_parallel

    return Mesh(tensor_parallel=SimpleNamespace(size=lambda: tensor_parallel))


@pytest.mark.parametrize(
    ("sae", "mesh", "message"),
    [
        ({"architecture": "jumprelu"}, mesh_of(1, 2), "must be of architecture topk"),
        ({"k": 2}, mesh_of(2, 2), "set `data_parallel_size` to 1, got 2"),
        ({"k": 2}, mesh_of(1, 3), "must divide d_sae = 16, got 3"),
    ],
)
def test_what_cannot_be_sharded_is_refused(sae: Any, mesh: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shard(new_sae(d_in=4, d_sae=16, **sae), mesh)


def run_of(**settings: Any) -> Any:
    from lightning.pytorch.strategies import ModelParallelStrategy

    is_testing = settings.pop("is_testing", False)
    strategy = ModelParallelStrategy(**settings)
    return SimpleNamespace(testing=is_testing, predicting=False, strategy=strategy)


def test_checkpoints_with_a_pickled_index_and_analyses_are_refused() -> None:
    check_run(run_of(save_distributed_checkpoint=False))
    with pytest.raises(ValueError, match="`save_distributed_checkpoint` must be false"):
        check_run(run_of())
    with pytest.raises(ValueError, match="only `fit` and `validate`"):
        check_run(run_of(save_distributed_checkpoint=False, is_testing=True))


def test_a_model_that_is_not_sharded_is_whole() -> None:
    model = new_sae("topk", d_in=4, d_sae=16, k=2)
    assert unshard(model) is model
    assert torch.is_grad_enabled()
