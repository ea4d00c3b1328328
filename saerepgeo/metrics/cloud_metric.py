"""Metrics of a cloud of points: one bounded sample, shared with all that has been found of it."""

from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from saerepgeo.geometry.clouds.conversion import as_float64
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import Alternative
from saerepgeo.metrics.estimates import EstimateMetric
from saerepgeo.metrics.geometry_metric import MergedStateMetric
from saerepgeo.types import Estimate, Float, Int, Interval, SparseLatents, to_dense

ROWS_PER_BLOCK = 1024
COLUMNS = ("labels", "named", "prompts", "positions")
_CLOUDS: Any = WeakIdKeyDictionary()
"""By the `columns` state of a metric: its cloud. Metrics of a compute group hold one and the same
tensor, and so find one and the same cloud, with the neighbors that any of them has searched."""
_N_NEIGHBORS: Any = WeakIdKeyDictionary()
"""By the same state: neighbors that any metric of the group reads, so that one search does."""
WHOLE = -1
"""Key of the points of a `LabeledCloud`, which are no sample; keys of content are positive."""


class CloudFigure(EstimateMetric):
    """A figure of a `LabeledCloud`, and what wrappers need to know of it.

    A metric of one's own defines `of(cloud) -> Estimate`, or `figures(cloud)` for several.
    """

    null: ClassVar[Literal["gaussian", "items"] | None] = "gaussian"
    """What chance is taken to be: one Gaussian cloud of the same covariance, or items dealt out to
    prompts at random."""
    alternative: ClassVar[Alternative] = "two-sided"
    """What speaks against the null."""
    is_count: ClassVar[bool] = False
    """Whether no rate of convergence fits: the interval is then the range of subsamples."""
    is_drawn: ClassVar[bool] = True
    """Whether it is computed on draws at all; False where that would take too long."""
    reads_named: ClassVar[bool] = False
    """Whether items are read at all points that have seen one, not at the labeled ones alone."""
    reads_sources: ClassVar[bool] = False
    """Whether paths from some of the points stand for all."""
    bounds: ClassVar[tuple[float, float]] = (-torch.inf, torch.inf)
    """Where an interval is cut off: what is possible."""
    n_neighbors: int = 0
    """Neighbors of each point that the figure reads, about: one search serves all figures."""

    def of(self, cloud: LabeledCloud) -> Estimate:
        """Return the figure of a cloud."""
        raise NotImplementedError

    def figures(self, cloud: LabeledCloud) -> dict[str, Estimate]:
        """Return the figures of a cloud by name."""
        return {self.stem: self.of(cloud)}

    def own_intervals(self, cloud: LabeledCloud, level: float) -> dict[str, Interval]:
        """Return intervals by name, where the figure has them without any draws."""
        return {}

    def scaled(self, share: float) -> "CloudFigure":
        """Return the metric for a `share` of the points: neighborhoods shrink with the sample."""
        return self


class CloudMetric(CloudFigure, MergedStateMetric):
    """A metric over at most `max_points` points, those of the smallest hash of their content.

    Whether a point is kept depends on the point, on `seed` and on the other points there are, never
    on when or where it came: any split into batches and processes, in any order, leaves the same
    sample, and merging two samples is the sample of both. Up to `max_points` points, nothing is
    lost; of more, a uniform sample of the distinct points remains, duplicates with them.

    All cloud metrics have the same states, so that torchmetrics puts those of a `MetricCollection`
    into one compute group; its members share the search for neighbors as well. A `LabeledCloud` in
    place of points is taken as it is, whole, with what has been found of it.

    Points are kept in `dtype`, rounded to it before they are hashed: max_points · dim entries.
    `SparseLatents` are kept dense. Integer and non-finite points are refused with a ValueError, as
    is a batch of another dimension.

    Args:
        max_points: size of the sample.
        seed: chooses among samples.
        dtype: float32 or float64.
    """

    points: Tensor
    other: Tensor
    columns: Tensor
    keys: Tensor
    n_seen: Tensor

    def __init__(
        self,
        max_points: int = 10_000,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if max_points < 1:
            raise ValueError(f"`max_points` must be ≥ 1, got {max_points}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}")
        self.max_points, self.seed = max_points, seed
        for name in ("points", "other"):
            self.add_state(name, torch.zeros(0, 0, dtype=dtype), dist_reduce_fx="cat")
        self.add_state("columns", torch.zeros(0, len(COLUMNS), dtype=torch.long), "cat")
        self.add_state("keys", torch.zeros(0, dtype=torch.long), dist_reduce_fx="cat")
        self.add_count("n_seen")
        self.add_settings(max_points, seed, dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "columns" and len(value):
            _N_NEIGHBORS[value] = max(_N_NEIGHBORS.get(value, 0), self.n_neighbors)

    @property
    def n_left_out(self) -> int:
        """Points seen that are not in the sample."""
        return int(self.n_seen) - len(self.points)

    def update(
        self,
        points: Float[Tensor, "point dim"] | SparseLatents | LabeledCloud,
        labels: Int[Tensor, "point"] | None = None,
        named: Int[Tensor, "point"] | None = None,
        prompts: Int[Tensor, "point"] | None = None,
        positions: Int[Tensor, "point"] | None = None,
        other: Float[Tensor, "point dim_other"] | SparseLatents | None = None,
    ) -> None:
        """Add points, with their items and prompts where a figure reads them (see `LabeledCloud`).

        `other` is a second representation of the same points, for metrics of pairs.
        """
        self.add_points(points, labels, named, prompts, positions, other)

    def add_points(
        self,
        points: Tensor | SparseLatents | LabeledCloud,
        labels: Tensor | None = None,
        named: Tensor | None = None,
        prompts: Tensor | None = None,
        positions: Tensor | None = None,
        other: Tensor | SparseLatents | None = None,
    ) -> None:
        """Take points up into the sample."""
        given = (labels, named, prompts, positions)
        if isinstance(points, LabeledCloud):
            if any(part is not None for part in (*given, other)):
                raise ValueError("a `LabeledCloud` brings its items and prompts: give it alone")
            self._take_clouds(points)
            return
        x = _rows(points, self.points)
        y = x[:, :0] if other is None else _rows(other, self.points, "other")
        columns = torch.full((len(x), len(COLUMNS)), -1, device=x.device)
        for number, (name, column) in enumerate(zip(COLUMNS, given, strict=True)):
            if column is not None and column.shape != x.shape[:1]:
                raise ValueError(
                    f"`{name}` must have one entry a point, got {tuple(column.shape)} for "
                    f"{len(x)} points"
                )
            source = given[0] if name == "named" and column is None else column
            columns[:, number] = -1 if source is None else source
        if len(y) != len(x):
            raise ValueError(
                f"`points` and `other` must have paired rows, got {len(x)} and {len(y)} points."
            )
        keys = _content_keys(torch.cat([x, y, columns[:, :1].to(x)], 1), self.seed)
        batch = {"points": x, "other": y, "columns": columns, "keys": keys}
        self._set(self.merge([self._state(), batch | {"n_seen": keys.new_tensor(len(x))}]))

    def add_pairs(
        self,
        points: Tensor | SparseLatents | LabeledCloud,
        other: Tensor | SparseLatents | LabeledCloud,
        *columns: Tensor | None,
        **by_name: Tensor | None,
    ) -> None:
        """Take points in two representations up into the sample."""
        if isinstance(points, LabeledCloud) and isinstance(other, LabeledCloud):
            self._take_clouds(points, other)
            return
        if isinstance(points, LabeledCloud) or isinstance(other, LabeledCloud):
            raise ValueError("`points` and `other` must both be a `LabeledCloud`, or neither")
        given: Any = dict(zip(COLUMNS, columns, strict=False)) | by_name
        self.add_points(points, other=other, **given)

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the sample of the points of several samples."""
        filled = [state for state in states if len(state["keys"])] or list(states[:1])
        n_seen = torch.stack([state["n_seen"] for state in states]).sum()
        if any(bool((state["keys"] == WHOLE).any()) for state in filled):
            if len(filled) > 1:
                raise ValueError("a `LabeledCloud` must be the only update: reset the metric first")
            return filled[0] | {"n_seen": n_seen}
        for name in ("points", "other"):
            dims = {state[name].shape[1] for state in filled}
            if len(dims) > 1:
                raise ValueError(f"`{name}` must have equally many columns, got {sorted(dims)}")
        keys = torch.cat([state["keys"] for state in filled])
        joined: dict[str, Tensor] = {"keys": keys}
        for name in ("points", "other", "columns"):
            joined[name] = torch.cat([state[name] for state in filled])
        if len(keys) > self.max_points:
            kept = keys.argsort(stable=True)[: self.max_points]
            joined = {name: column[kept] for name, column in joined.items()}
        return joined | {"n_seen": n_seen}

    @property
    def cloud(self) -> LabeledCloud:
        """The points that this process has sampled, with what any metric has found of them."""
        return self.clouds[0]

    @property
    def clouds(self) -> tuple[LabeledCloud, ...]:
        """The points, and their second representation where there is one."""
        found: tuple[LabeledCloud, ...] | None = _CLOUDS.get(self.columns)
        if found is None:
            # a copy: a view would keep its base alive, by which the cloud is known
            columns = dict(zip(COLUMNS, self.columns.cpu().T.clone(), strict=True))
            prompts, alone = columns["prompts"], torch.arange(len(self.columns))
            first = int(prompts.max()) + 1 if len(prompts) else 0
            columns["prompts"] = torch.where(prompts < 0, first + alone, prompts)
            spaces = [self.points, self.other] if self.other.shape[1] else [self.points]
            found = tuple(LabeledCloud(points, **columns) for points in spaces)
            _CLOUDS[self.columns] = found
        return found

    def estimate(self) -> Estimate:
        """Return the only figure of the sample."""
        (figure,) = self.estimates().values()
        return figure

    def compute(self) -> Any:
        """Return the value over all processes, or several by name; NaN where `reason` says why."""
        found = self.estimates()
        self.reason = next((f.reason for f in found.values() if f.reason is not None), None)
        values = {name: figure.value for name, figure in found.items()}
        return values[self.stem] if list(values) == [self.stem] else values

    def estimates(self) -> dict[str, Estimate]:
        """Return the figures of the sample by name; points left out of it count as dropped."""
        left_out = self.n_left_out
        return {
            name: figure._replace(n_dropped=figure.n_dropped + left_out)
            for name, figure in self._figures_of_sample().items()
        }

    def _figures_of_sample(self) -> dict[str, Estimate]:
        self.cloud.search(_N_NEIGHBORS.get(self.columns, 0))
        return evaluate([self], *self.clouds)

    def _take_clouds(self, *clouds: LabeledCloud) -> None:
        sizes = [cloud.n_points for cloud in clouds]
        if len(set(sizes)) > 1:
            raise ValueError(f"`points` and `other` must have paired rows, got {sizes} points")
        tensors = [to_dense(cloud.points).to(self.points.device) for cloud in clouds]
        first = torch.stack([getattr(clouds[0], name) for name in COLUMNS], 1)
        whole = {
            "points": tensors[0],
            "other": tensors[1] if len(tensors) > 1 else tensors[0][:, :0],
            "columns": first.to(self.points.device),
            "keys": self.keys.new_full(sizes[:1], WHOLE),
            "n_seen": self.n_seen.new_tensor(sizes[0]),
        }
        self._set(self.merge([self._state(), whole]))
        _CLOUDS[self.columns] = clouds


class PairMetric(CloudMetric):
    """A figure of two representations of the same points, e.g. residuals and effective latents.

    A metric of one's own defines `of_pair(x, y) -> Estimate` and, for a null, `by_chance`.
    """

    null = None

    def update(  # type: ignore[override]
        self,
        points: Float[Tensor, "point dim"] | SparseLatents | LabeledCloud,
        other: Float[Tensor, "point dim_other"] | SparseLatents | LabeledCloud,
        labels: Int[Tensor, "point"] | None = None,
        named: Int[Tensor, "point"] | None = None,
        prompts: Int[Tensor, "point"] | None = None,
        positions: Int[Tensor, "point"] | None = None,
    ) -> None:
        """Add points in both representations."""
        self.add_pairs(points, other, labels, named, prompts, positions)

    def of_pair(self, x: LabeledCloud, y: LabeledCloud) -> Estimate:
        """Return the figure of two representations."""
        raise NotImplementedError

    def by_chance(self, x: LabeledCloud, y: LabeledCloud, generator: torch.Generator) -> Estimate:
        """Return the figure under one random pairing."""
        return Estimate.undefined("no null is defined")

    def pair_figures(self, x: LabeledCloud, y: LabeledCloud) -> dict[str, Estimate]:
        """Return the figures of two representations by name."""
        return {self.stem: self.of_pair(x, y)}


def evaluate(metrics: Sequence[CloudFigure], *clouds: LabeledCloud) -> dict[str, Estimate]:
    """Return the figures of a cloud, or of a pair, from one neighbor search."""
    if not clouds[0].n_points:
        return {metric.stem: Estimate.undefined("no points") for metric in metrics}
    clouds[0].search(max((metric.n_neighbors for metric in metrics), default=0))
    figures: dict[str, Estimate] = {}
    for metric in metrics:
        if isinstance(metric, PairMetric):
            figures |= metric.pair_figures(*clouds)
        else:
            figures |= metric.figures(clouds[0])
    return figures


def shrunk(metric: CloudFigure, share: float, *sizes: str) -> Any:
    """Return a copy of `metric` with the named sizes times `share`, at least 2."""
    smaller = copy(metric)
    for name in sizes:
        setattr(smaller, name, max(2, round(getattr(metric, name) * share)))
    return smaller


def _rows(points: Tensor | SparseLatents, like: Tensor, name: str = "points") -> Tensor:
    # adding 0 makes −0 and 0 one point
    return as_float64(points, name).detach().to(like) + 0.0


def _content_keys(x: Float[Tensor, "point dim"], seed: int) -> Int[Tensor, "point"]:
    """Return a 63-bit hash of each row: equal rows, and hardly ever others, have equal keys.

    A random linear form of the bits modulo 2⁶⁴ (universal: Dietzfelbinger 1996), then the finalizer
    of SplitMix64, for only the high bits of the form are well mixed.
    """
    factors = _factors(x.shape[1], seed).to(x.device)
    bits = x.view(torch.int32 if x.dtype == torch.float32 else torch.int64)
    blocks = [(part.long() * factors).sum(1) for part in bits.split(ROWS_PER_BLOCK)]
    z = torch.cat(blocks) if blocks else factors.new_zeros(0)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        z = (z ^ _logical_shift(z, shift)) * factor
    return _logical_shift(z ^ _logical_shift(z, 31), 1)


def _logical_shift(z: Tensor, by: int) -> Tensor:
    return (z >> by) & ((1 << (64 - by)) - 1)


@lru_cache(maxsize=8)
def _factors(dim: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-(2**63), 2**63 - 1, (dim,), generator=generator) | 1
