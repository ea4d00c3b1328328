"""What chance gives: Gaussian clouds, dealt items, random pairings, random dictionaries."""

from collections.abc import Callable, Sequence
from typing import cast

import torch

from saerepgeo.geometry.clouds.conversion import as_cloud
from saerepgeo.geometry.clouds.entries import centered, in_float32
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.geometry.clouds.matrix import MatrixCloud
from saerepgeo.metrics.cloud_metric import CloudFigure, PairMetric, evaluate
from saerepgeo.metrics.wrappers.wrapped import in_threads
from saerepgeo.types import generator_for

Draws = dict[str, list[float]]
Drawing = Callable[[int], LabeledCloud]
Sampler = Callable[[Sequence[CloudFigure], range], Draws]


class Null:
    """What chance is taken to be. One of one's own defines `drawing`."""

    n_sources: int | None = None
    """Points whose paths stand for all in draws; the value compared takes as many."""

    def drawing(self, cloud: LabeledCloud, seed: int) -> Drawing:
        """Return a function that makes draw 0, 1, … of the null of a cloud."""
        raise NotImplementedError

    def values(
        self, metrics: Sequence[CloudFigure], clouds: Sequence[LabeledCloud], n: int, seed: int
    ) -> Draws:
        """Return `n` draws of every figure."""
        return self.sampler(clouds, seed)(metrics, range(n))

    def sampler(self, clouds: Sequence[LabeledCloud], seed: int) -> Sampler:
        """Return a function of metrics and numbers of draws, asked for in order: their figures."""
        draw = self.drawing(clouds[0], seed)

        def sample(metrics: Sequence[CloudFigure], numbers: range) -> Draws:
            drawn = in_threads(lambda number: evaluate(metrics, draw(number)), numbers)
            names = dict.fromkeys(name for figures in drawn for name in figures)
            return {name: [float(f[name]) for f in drawn if name in f] for name in names}

        return sample


class GaussianNull(Null):
    """One Gaussian cloud of the same principal spreads: no clusters, no curvature."""

    def __init__(self, n_sources: int = 128) -> None:
        self.n_sources = n_sources

    def drawing(self, cloud: LabeledCloud, seed: int) -> Drawing:
        x = cloud.coordinates()
        x, unit = centered(x)
        gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
        spread = (torch.linalg.eigvalsh(gram).clamp(min=0) / max(len(x) - 1, 1)).sqrt()
        spread = in_float32(spread[None] * unit)
        # any of the points are as good as random ones
        sources = torch.arange(min(self.n_sources or len(x), len(x)))

        def draw(number: int) -> LabeledCloud:
            generator = generator_for(seed, f"null/{cloud.name}", number)
            noise = torch.randn(len(x), spread.shape[1], generator=generator) * spread
            made = as_cloud(noise) if cloud.is_large else MatrixCloud.of_points(noise)
            return LabeledCloud.of_cloud(made, noise, sources)

        return draw


class PermutedItems(Null):
    """Items dealt out to prompts at random: the points of a prompt keep one item.

    Args:
        of_named: deal to all points that have seen an item, not to the labeled ones.
    """

    def __init__(self, of_named: bool = False) -> None:
        self.of_named = of_named

    def drawing(self, cloud: LabeledCloud, seed: int) -> Drawing:
        labels = cloud.named if self.of_named else cloud.labels
        stage = "within" if self.of_named else "between"
        kept = labels >= 0
        names, first = cloud.prompts[kept].unique(return_inverse=True)
        items = torch.empty(len(names), dtype=torch.long)
        items[first] = labels[kept]

        def draw(number: int) -> LabeledCloud:
            generator = generator_for(seed, f"null/{cloud.name}/{stage}", number)
            order = torch.randperm(len(names), generator=generator)
            dealt = torch.full_like(labels, -1)
            dealt[kept] = items[order][first]
            return cloud.relabeled(named=dealt) if self.of_named else cloud.relabeled(labels=dealt)

        return draw


class RandomDictionaries(Null):
    """The same points through other dictionaries: `latents` gives draw 0, 1, … as a cloud."""

    def __init__(self, latents: Drawing) -> None:
        self.latents = latents

    def drawing(self, cloud: LabeledCloud, seed: int) -> Drawing:
        return self.latents


class RandomPairing(Null):
    """The two representations paired at random, as each metric of pairs says."""

    def sampler(self, clouds: Sequence[LabeledCloud], seed: int) -> Sampler:
        x, y = clouds
        generators: dict[str, torch.Generator] = {}

        def sample(metrics: Sequence[CloudFigure], numbers: range) -> Draws:
            found: Draws = {}
            for metric in cast(Sequence[PairMetric], metrics):
                purpose = f"null/{y.name}/{metric.title}"
                if metric.stem not in generators:
                    generators[metric.stem] = generator_for(seed, purpose)
                own = metric.by_chance(x, y, len(numbers), generators[metric.stem])
                found[metric.stem] = [float(figure) for figure in own]
            return found

        return sample
