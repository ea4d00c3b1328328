"""Metrics of a cloud of points: one bounded sample, shared with all that has been found of it."""

from collections.abc import Collection, Sequence
from copy import copy
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from saerepgeo.geometry.clouds.conversion import as_float64, check_labels_of
from saerepgeo.geometry.clouds.entries import unit_of
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.nulls import Alternative
from saerepgeo.metrics.geometry_metric import Count, EstimateMetric, MergedStateMetric
from saerepgeo.types import Estimate, Float, Int, Interval, SparseLatents, to_dense

ROWS_PER_BLOCK = 1024
COLUMNS = ("labels", "named", "prompts", "positions")
_CLOUDS: Any = WeakIdKeyDictionary()
"""Clouds by the `columns` state, one and the same tensor for all metrics of a compute group."""
_N_NEIGHBORS: Any = WeakIdKeyDictionary()
"""By the same state: neighbors that any metric of the group reads, so that one search does."""
WHOLE = -1
"""Key of the points of a `LabeledCloud`, which are no sample; keys of content are positive."""


class CloudFigure(EstimateMetric):
    """A figure of a `LabeledCloud`: one of one's own defines `of`, or `figures` for several."""

    null: Literal["gaussian", "items"] | None = "gaussian"
    """What chance is: a Gaussian cloud of the same covariance, or items dealt to prompts."""
    alternative: Alternative = "two-sided"
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
    shrinking: ClassVar[tuple[str, ...]] = ()
    """Attributes that are sizes of neighborhoods, and shrink with the sample."""
    n_neighbors: int = 0
    """Neighbors of each point that the figure reads, about."""
    given_names: tuple[str, ...] = ()
    """Names of the figures that it last gave, which may be any."""

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
        """Return the metric for a `share` of the points: what is `shrinking` is at least 2."""
        smaller = copy(self) if self.shrinking else self
        for name in self.shrinking:
            setattr(smaller, name, max(2, round(getattr(self, name) * share)))
        return smaller


class CloudMetric(CloudFigure, MergedStateMetric):
    """A metric over at most `max_points` points, those of the smallest hash of their content.

    Any split into batches and processes, in any order, leaves the same sample: of more points, a
    uniform one of the distinct points, duplicates with them. Those of a `MetricCollection` form one
    compute group, which searches for neighbors once. A `LabeledCloud` is taken whole, with what has
    been found of it. Points are rounded to `dtype` and kept dense. Integer and non-finite points
    raise ValueError, as does a batch of another dimension.

    Args:
        max_points: size of the sample.
        seed: chooses among samples.
        dtype: float32 or float64.
    """

    points: Tensor
    other: Tensor
    columns: Tensor
    keys: Tensor
    n_seen: Count

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
        other: Float[Tensor, "point dim_other"] | SparseLatents | LabeledCloud | None = None,
    ) -> None:
        """Add points, with what a figure reads of them (see `LabeledCloud`); `other` for pairs."""
        self.check(points, labels)
        given = (labels, labels if named is None else named, prompts, positions)
        if isinstance(points, LabeledCloud) or isinstance(other, LabeledCloud):
            self._take_clouds(given, *([points] if other is None else [points, other]))
            return
        x = _rows(points, self.points)
        y = x[:, :0] if other is None else _rows(other, self.points, "other")
        columns = torch.full((len(x), len(COLUMNS)), -1, device=x.device)
        for number, (name, column) in enumerate(zip(COLUMNS, given, strict=True)):
            if column is not None:
                check_labels_of(x, column, name)
            columns[:, number] = -1 if column is None else column
        if len(y) != len(x):
            sizes = f"{len(x)} and {len(y)} points"
            raise ValueError(f"`points` and `other` must have paired rows, got {sizes}")
        keys = _content_keys(torch.cat([x, y, columns[:, :1].to(x)], 1), self.seed)
        batch = {"points": x, "other": y, "columns": columns, "keys": keys}
        self._set(self.merge([self._state(), batch | {"n_seen": keys.new_tensor(len(x))}]))

    def add_pairs(
        self,
        points: Float[Tensor, "point dim"] | SparseLatents | LabeledCloud,
        other: Float[Tensor, "point dim_other"] | SparseLatents | LabeledCloud,
        labels: Int[Tensor, "point"] | None = None,
        named: Int[Tensor, "point"] | None = None,
        prompts: Int[Tensor, "point"] | None = None,
        positions: Int[Tensor, "point"] | None = None,
    ) -> None:
        """Add points in both representations."""
        CloudMetric.update(self, points, labels, named, prompts, positions, other)

    def check(self, points: Any, labels: Tensor | None) -> None:
        """Raise ValueError for points that the figure cannot be of; by default for none."""

    def merge(self, states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        filled = [state for state in states if len(state["keys"])] or states[:1]
        n_seen = torch.stack([state["n_seen"] for state in states]).sum()
        if any(bool((state["keys"] == WHOLE).any()) for state in filled):
            if len(filled) > 1:
                raise ValueError("a `LabeledCloud` must be the only update: reset the metric first")
            return filled[0] | {"n_seen": n_seen}
        for name in ("points", "other"):
            dims = {state[name].shape[1] for state in filled}
            if len(dims) > 1:
                raise ValueError(f"`{name}` must have equally many columns, got {sorted(dims)}")
        names = ("points", "other", "columns", "keys")
        joined = {name: torch.cat([state[name] for state in filled]) for name in names}
        if len(joined["keys"]) > self.max_points:
            kept = joined["keys"].argsort(stable=True)[: self.max_points]
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
        (figure,) = self.estimates().values()
        return figure

    def estimates(self) -> dict[str, Estimate]:
        """Return the figures of the sample by name; points left out of it count as dropped."""
        found = self._figures_of_sample()
        return {n: f._replace(n_dropped=f.n_dropped + self.n_left_out) for n, f in found.items()}

    def _figures_of_sample(self) -> dict[str, Estimate]:
        self.cloud.search(_N_NEIGHBORS.get(self.columns, 0))
        return evaluate([self], *self.clouds)

    def _take_clouds(self, given: Sequence[Tensor | None], *clouds: Any) -> None:
        if not all(isinstance(cloud, LabeledCloud) for cloud in clouds):
            raise ValueError("`points` and `other` must both be a `LabeledCloud`, or neither")
        if any(column is not None for column in given):
            raise ValueError("a `LabeledCloud` brings its items and prompts: give it alone")
        sizes = [cloud.n_points for cloud in clouds]
        if len(set(sizes)) > 1:
            raise ValueError(f"`points` and `other` must have paired rows, got {sizes} points")
        x, *others = (to_dense(cloud.points).to(self.points.device) for cloud in clouds)
        columns = torch.stack([getattr(clouds[0], name) for name in COLUMNS], 1)
        whole = {
            "points": x,
            "other": others[0] if others else x[:, :0],
            "columns": columns.to(self.points.device),
            "keys": self.keys.new_full(sizes[:1], WHOLE),
            "n_seen": self.n_seen.new_tensor(sizes[0]),
        }
        self._set(self.merge([self._state(), whole]))
        _CLOUDS[self.columns] = clouds


class PairMetric(CloudMetric):
    """A figure of two representations of the same points: `of_pair`, and `by_chance` for a null."""

    null = None
    update = CloudMetric.add_pairs  # type: ignore[assignment]

    def of_pair(self, x: LabeledCloud, y: LabeledCloud) -> Estimate:
        """Return the figure of two representations."""
        raise NotImplementedError

    def by_chance(
        self, x: LabeledCloud, y: LabeledCloud, n_draws: int, generator: torch.Generator
    ) -> list[Estimate]:
        """Return the figure under random pairings."""
        return n_draws * [Estimate.undefined("no null is defined")]

    def pair_figures(self, x: LabeledCloud, y: LabeledCloud) -> dict[str, Estimate]:
        """Return the figures of two representations by name."""
        return {self.stem: self.of_pair(x, y)}


def evaluate(metrics: Collection[CloudFigure], *clouds: LabeledCloud) -> dict[str, Estimate]:
    """Return the figures of a cloud, or of a pair, from one neighbor search."""
    if not clouds[0].n_points:
        return {metric.stem: Estimate.undefined("no points") for metric in metrics}
    clouds[0].search(max((metric.n_neighbors for metric in metrics), default=0))
    found: dict[str, Estimate] = {}
    for metric in metrics:
        if isinstance(metric, PairMetric):
            own = metric.pair_figures(*clouds)
        else:
            own = metric.figures(clouds[0])
        if metric.given_names != (names := tuple(own)):  # a module's attributes are slow to set
            metric.given_names = names
        found |= own
    return found


def _rows(points: Tensor | SparseLatents, like: Tensor, name: str = "points") -> Tensor:
    x = as_float64(points, name).detach()
    unit, info = unit_of(x), torch.finfo(like.dtype)
    if not info.tiny <= unit < info.max:
        raise ValueError(
            f"`{name}` must fit {info.dtype}, got entries of about {unit:.0e}: scale them, or give "
            "`dtype=torch.float64`"
        )
    # adding 0 makes −0 and 0 one point
    return x.to(like) + 0.0


def _content_keys(x: Float[Tensor, "point dim"], seed: int) -> Int[Tensor, "point"]:
    # a random linear form of the bits modulo 2⁶⁴ (universal: Dietzfelbinger 1996), then the
    # finalizer of SplitMix64, for only the high bits of the form are well mixed
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
