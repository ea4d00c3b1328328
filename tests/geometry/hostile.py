"""Hostile input by kind, and what is to become of it: a figure, a reason, or ValueError."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saerepgeo.types import Estimate, Interval, SparseLatents

REFUSED = "ValueError"
UNDEFINED = "undefined, with a reason"
ALIKE = "as of the ordinary points"
FINITE = "any number, or a reason"
NOT_TAKEN = "not a form that the function takes"
N = 36
F64 = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


FEW = normal(N, 150) * (normal(N, 150, seed=1).abs() > 2)
GROUPS = 9.0 * (torch.arange(N) % 3)[:, None]
POINTS = {"narrow": normal(N, 3) + GROUPS, "wide": normal(N, 12), "few entries": FEW}
"""Searched by a tree, by scalar products, and as a sparse matrix."""
SPECTRUM = torch.tensor([5.0, 3.0, 2.0, 0.5, 0.0], dtype=F64)
DISTANCES = torch.cdist(normal(9, 3), normal(9, 3))


class Kind(NamedTuple):
    """Input made of ordinary points; the result is `factor`^power times that of `same_as`."""

    make: Callable[[Tensor], Any]
    expected: Any = REFUSED
    same_as: Callable[[Tensor], Tensor] = lambda x: x
    factor: float = 1.0
    rtol: float = 1e-9


def spoilt(value: float) -> Kind:
    def make(x: Tensor) -> Tensor:
        return torch.where(torch.arange(x.numel()).view(x.shape) == 1, value, x)

    return Kind(make)


def scaled(scale: float) -> Kind:
    if scale > 1e-300:
        return Kind(lambda x: x * scale, ALIKE, factor=scale)
    # such numbers have three digits: of the same ones, scaled back
    back = 2.0**1000
    return Kind(lambda x: x * scale, ALIKE, lambda x: x * scale * back, 1 / back, rtol=1e-3)


def narrowed(dtype: torch.dtype, scale: float = 1.0) -> Kind:
    def make(x: Tensor) -> Tensor:
        return x.to(dtype) * scale

    return Kind(make, ALIKE, lambda x: make(x).double(), rtol=1e-5)


KINDS: dict[str, Kind] = {
    "NaN": spoilt(math.nan),
    "inf": spoilt(math.inf),
    "-inf": spoilt(-math.inf),
    "integers": Kind(lambda x: (4 * x).long()),
    "booleans": Kind(lambda x: x > 0),
    "complex": Kind(lambda x: x.cfloat()),
    "a scalar": Kind(lambda x: x.reshape(-1)[0]),
    "3-D": Kind(lambda x: x.expand(2, *x.shape) if x.ndim == 2 else x.view(1, 1, -1)),
    "half": narrowed(torch.half),
    "bfloat16": narrowed(torch.bfloat16),
    "float32 at 1e-30": narrowed(torch.float32, 1e-30),
    "float32 at 1e30": narrowed(torch.float32, 1e30),
    "1e-320": scaled(1e-320),
    "1e-200": scaled(1e-200),
    "1e-150": scaled(1e-150),
    "1e150": scaled(1e150),
    "1e200": scaled(1e200),
    "not contiguous": Kind(lambda x: torch.stack([x, -x], -1)[..., 0], ALIKE),
    "requires grad": Kind(lambda x: x.clone().requires_grad_(), ALIKE),
}
OF_POINTS: dict[str, Kind] = KINDS | {
    "far away": Kind(lambda x: x + 1e9, ALIKE, lambda x: (x + 1e9) - 1e9, rtol=1e-5),
    "a vector": Kind(lambda x: x[:, 0]),
    "empty": Kind(lambda x: x[:0], UNDEFINED),
    "no columns": Kind(lambda x: x[:, :0], FINITE),
    "one point": Kind(lambda x: x[:1], UNDEFINED),
    "two equal": Kind(lambda x: x[:1].repeat(2, 1), UNDEFINED),
    "all equal": Kind(lambda x: x[:1].repeat(len(x), 1), UNDEFINED),
    "all 0": Kind(lambda x: x * 0, UNDEFINED),
}
OF_SPECTRA: dict[str, Kind] = KINDS | {
    "a matrix": Kind(lambda x: x[:, None]),
    "negative": Kind(lambda x: x - 1),
    "empty": Kind(lambda x: x[:0], UNDEFINED),
    "all 0": Kind(lambda x: x * 0, UNDEFINED),
    "rising": Kind(lambda x: x.flip(0), ALIKE),
}
OF_DISTANCES: dict[str, Kind] = KINDS | {
    "a vector": Kind(lambda x: x[:, 0]),
    "not square": Kind(lambda x: x[:, 1:]),
    "empty": Kind(lambda x: x[:0, :0], FINITE),
    "one point": Kind(lambda x: x[:1, :1], FINITE),
    "all equal": Kind(lambda x: x * 0, FINITE),
}


def latents(change: Callable[[SparseLatents], dict[str, Any]], expected: Any = REFUSED) -> Kind:
    def make(x: Tensor) -> SparseLatents:
        held = SparseLatents.from_dense(x)
        return held._replace(**change(held))

    return Kind(make, expected)


OF_LATENTS: dict[str, Kind] = {
    "sparse": Kind(lambda x: x.to_sparse(), ALIKE),
    "latents": latents(lambda x: {}, ALIKE),
    "latents of int32": latents(lambda x: {"indices": x.indices.int()}, ALIKE),
    "repeated index": latents(
        lambda x: {
            "values": torch.cat([3 * x.values, -2 * x.values], 1),
            "indices": torch.cat([x.indices, x.indices], 1),
        },
        ALIKE,
    ),
    "index too large": latents(lambda x: {"indices": x.indices + 100}),
    "negative index": latents(lambda x: {"indices": x.indices - 100}),
    "float index": latents(lambda x: {"indices": x.indices.double()}),
    "too few indices": latents(lambda x: {"indices": x.indices[:, :1]}),
    "small d_sae": latents(lambda x: {"d_sae": 20}),
    "no d_sae": latents(lambda x: {"d_sae": 0}),
    "NaN latents": latents(lambda x: {"values": x.values * math.nan}),
    "integer latents": latents(lambda x: {"values": x.values.long()}),
    "latents at 1e200": Kind(lambda x: SparseLatents.from_dense(x * 1e200), ALIKE, factor=1e200),
    "latents at 1e-200": Kind(lambda x: SparseLatents.from_dense(x / 1e200), ALIKE, factor=1e-200),
}
"""Of points with few entries, besides the others."""


def faults(
    call: Callable[[Any], Any],
    ordinary: Tensor,
    kinds: dict[str, Kind],
    power: int = 0,
    expected: dict[str, Any] | None = None,
    rtol: float = 0.0,
) -> list[str]:
    """Return what is wrong with the results of a function, by kind of input."""
    known = expected or {}
    kinds = {name: kind._replace(rtol=max(rtol, kind.rtol)) for name, kind in kinds.items()}
    return [
        f"{name}: {fault}"
        for name, kind in kinds.items()
        if (fault := _fault(call, ordinary, kind, power, known.get(name, kind.expected)))
    ]


def _fault(
    call: Callable[[Any], Any], ordinary: Tensor, kind: Kind, power: int, expected: Any
) -> str | None:
    if expected == NOT_TAKEN:
        return None
    try:
        found = call(kind.make(ordinary))
    except ValueError as error:
        return None if expected == REFUSED else f"expected {expected}, got ValueError: {error}"
    except Exception as error:
        return f"expected {expected}, got {type(error).__name__}: {str(error)[:99]}"
    if expected == REFUSED:
        return f"expected ValueError, got {found}"
    reasons, numbers = list(_reasons(found)), torch.tensor(list(_numbers(found)), dtype=F64)
    if expected == UNDEFINED or (expected == FINITE and reasons):
        return None if reasons else f"expected a reason, got {found}"
    if not reasons and not bool(numbers.isfinite().all()):
        return f"expected {expected}, got {found}"
    if expected == FINITE:
        return None
    if expected == ALIKE:
        reference = call(kind.same_as(ordinary))
        if reasons != list(_reasons(reference)):
            return f"expected {reference}, got {found}"
        wanted = torch.tensor(list(_numbers(reference)), dtype=F64) * kind.factor**power
    else:
        wanted = torch.as_tensor(expected, dtype=F64).expand_as(numbers)
    atol = kind.rtol * float(wanted[wanted.isfinite()].abs().sum())
    is_close = numbers.shape == wanted.shape and torch.allclose(
        numbers, wanted, kind.rtol, atol, equal_nan=bool(reasons)
    )
    return None if is_close else f"expected {wanted}, got {numbers}"


def _reasons(found: Any) -> Iterator[str]:
    """Yield why numbers are NaN."""
    if isinstance(found, Interval) and not found.n_draws and math.isnan(found.low):
        yield "no draws"
    elif isinstance(found, Estimate) and math.isfinite(float(found)) != (found.reason is None):
        raise AssertionError(f"a reason stands beside NaN, and nothing else: {found}")
    elif reason := getattr(found, "reason", None):
        yield reason
    elif isinstance(found, dict | tuple):
        for part in found.values() if isinstance(found, dict) else found:
            yield from _reasons(part)


def _numbers(found: Any) -> Iterator[float]:
    if isinstance(found, Estimate):
        yield float(found)
    elif isinstance(found, Tensor):
        yield from found.detach().double().flatten().tolist()
    elif isinstance(found, dict | tuple | list):
        for part in found.values() if isinstance(found, dict) else found:
            yield from _numbers(part)
    elif isinstance(found, int | float):
        yield float(found)
