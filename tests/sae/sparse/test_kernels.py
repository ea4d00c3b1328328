"""The Triton kernels in Triton's interpreter, against torch's path and float64 autograd.

Triton reads TRITON_INTERPRET when it is first imported, so the tests run in a process of their own:
without the variable this file starts that process and holds it to its exit status.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from saerepgeo.sae.sparse import pair_products as products
from saerepgeo.sae.sparse.active_pairs import Pairs
from saerepgeo.sae.sparse.encoding import encode_topk
from saerepgeo.sae.sparse.pair_products import decode_pairs

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

interpreted = pytest.mark.skipif(not IS_INTERPRETED, reason="runs in the process started below")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (Linux only)"
)

# d_model below, at and above a block; counts below, at and above a block of entries; none at all
RAGGED = [
    ("one point", 3, 5, [4]),
    ("empty points", 37, 50, [0, 7, 0, 16, 17, 0]),
    ("more than a block", 300, 40, [33, 40, 1]),
    ("no pair", 8, 5, [0, 0]),
    ("no point", 8, 5, []),
]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 1e-2}


def ragged(d_sae: int, counts: list[int]) -> Pairs:
    """Return pairs with the given number per point, without duplicates within a point."""
    generator = torch.Generator().manual_seed(len(counts))
    columns = [torch.randperm(d_sae, generator=generator)[:count] for count in counts]
    offsets = torch.tensor([0, *counts]).cumsum(0)
    return Pairs(torch.cat([torch.empty(0, dtype=torch.long), *columns]), offsets, d_sae)


def dense_of(values: Tensor, pairs: Pairs) -> Tensor:
    dense = values.new_zeros(pairs.n_points, pairs.d_sae)
    return dense.index_put((pairs.points, pairs.columns), values)


def step_equals_float64_autograd(k: int, device: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(4)
    shapes = {"weight": (19, 45), "bias": (45,), "input_bias": (19,), "decoder": (45, 19)}
    exact = {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}
    plain = {name: t.double().requires_grad_() for name, t in exact.items()}
    ours = {name: t.to(device, dtype).requires_grad_() for name, t in exact.items()}
    points = torch.randn(23, 19, generator=generator).double()

    on_device = points.to(device, dtype)
    found = encode_topk(on_device, ours["weight"], ours["bias"], k, ours["input_bias"])
    recons = decode_pairs(found.active.values, found.active.pairs, ours["decoder"])
    (recons - on_device).square().sum(dim=1).mean().backward()

    scores = (points - plain["input_bias"]) @ plain["weight"] + plain["bias"]
    best, indices = scores.topk(k, dim=1)
    latents = torch.zeros_like(scores).scatter(1, indices, best.relu())
    (latents @ plain["decoder"] - points).square().sum(dim=1).mean().backward()

    for name, tensor in ours.items():
        close(tensor.grad.cpu(), plain[name].grad, dtype)


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype
    scale = float(expected.abs().max()) if expected.numel() else 1.0
    assert_close(found.double(), expected.double(), rtol=0.0, atol=TOLERANCE[dtype] * max(scale, 1))


def test_in_the_interpreter() -> None:
    if IS_INTERPRETED:
        return
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout, run.stdout


@pytest.mark.skipif(IS_INTERPRETED, reason="the interpreter has no compiler")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")  # of Triton 3.9 to its users
@pytest.mark.parametrize("name", ["_bag_sum_kernel", "_bag_dots_kernel"])
def test_compiles_for_a_gpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler refuses things that the interpreter takes; it needs no GPU."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from saerepgeo.sae.sparse import kernels

    function = getattr(kernels, name)
    types = {"columns": "*i64", "offsets": "*i64", "width": "i32"}
    pointers = {"values", "rows", "out", "dense"}
    constants: dict[str, Any] = {"block_width": 256, "dtype": tl.float32}
    for element in ("fp32", "bf16"):
        signature = {
            argument: f"*{element}" if argument in pointers else types.get(argument, "constexpr")
            for argument in function.arg_names
        }
        source = ASTSource(function, signature=signature, constexprs=constants)
        made = compile(source, target=GPUTarget("cuda", 90, 32))
        assert len(made.asm["cubin"]) > 0


@interpreted
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize(("d_model", "d_sae", "counts"), [r[1:] for r in RAGGED], ids=lambda v: "")
def test_products_equal_dense_ones(
    d_model: int, d_sae: int, counts: list[int], dtype: torch.dtype
) -> None:
    pairs, generator = ragged(d_sae, counts), torch.Generator().manual_seed(1)
    values = torch.randn(sum(counts), generator=generator).to(dtype)
    rows = torch.randn(d_sae, d_model, generator=generator).to(dtype)
    points = torch.randn(len(counts), d_model, generator=generator).to(dtype)
    latents = dense_of(values.double(), pairs)
    assert products.triton_kernels(rows) is not None

    close(products.sum_rows(values, pairs, rows), latents @ rows.double(), dtype)
    close(products.scatter_outer(values, pairs, points), latents.t() @ points.double(), dtype)
    dots = (points.double() @ rows.double().t())[pairs.points, pairs.columns]
    close(products.dot_rows(points, pairs, rows), dots, dtype)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_equal_those_of_torch(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, generator = ragged(70, [9, 0, 31, 70, 2]), torch.Generator().manual_seed(2)
    values = torch.randn(112, generator=generator, dtype=dtype)
    rows = torch.randn(70, 41, generator=generator, dtype=dtype)
    points = torch.randn(5, 41, generator=generator, dtype=dtype)

    def run() -> list[Tensor]:
        return [
            products.sum_rows(values, pairs, rows),
            products.scatter_outer(values, pairs, points),
            products.dot_rows(points, pairs, rows),
        ]

    by_triton = run()
    monkeypatch.setattr(products, "triton_kernels", lambda tensor: None)
    for found, expected in zip(by_triton, run(), strict=True):
        close(found, expected, dtype)


@interpreted
def test_decoder_gradients_in_float64() -> None:
    pairs, generator = ragged(12, [5, 0, 3]), torch.Generator().manual_seed(3)
    values = torch.randn(8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, 7, generator=generator, dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(lambda v, w: decode_pairs(v, pairs, w), (values, weight))


@interpreted
@pytest.mark.parametrize("k", [1, 7, 20])
def test_a_training_step_equals_float64_autograd(k: int) -> None:
    step_equals_float64_autograd(k, "cpu", torch.float64)


@interpreted
def test_sums_are_the_same_bits_again() -> None:
    pairs, generator = ragged(9, [9] * 40), torch.Generator().manual_seed(5)
    values, points = torch.randn(360, generator=generator), torch.randn(40, 33, generator=generator)

    first = products.scatter_outer(values, pairs, points)
    again = Pairs(pairs.columns, pairs.offsets, pairs.d_sae)

    assert torch.equal(first, products.scatter_outer(values, again, points))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_training_step_on_the_gpu_equals_float64_autograd() -> None:
    step_equals_float64_autograd(7, "cuda", torch.float32)
