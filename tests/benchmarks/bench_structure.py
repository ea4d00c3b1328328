"""Case 2's sound figures of growing clouds, and UMAP's embedding beside the plain calls.

`python tests/benchmarks/bench_structure.py [--points N …] [--plot PICTURE.png] [--rounds N]`
"""

import argparse
import time
import warnings
from pathlib import Path

import torch
from timing import compare, peak_mib

from saerepgeo.cases.structure.protocols import sound_metrics
from saerepgeo.geometry.clouds.labeled import LabeledCloud
from saerepgeo.metrics import Evidence, PairMetric
from saerepgeo.types import SparseLatents

D_SAE, K = 4608, 32
N_ITEMS, PROMPT = 20, 10


def concept(n_points: int) -> LabeledCloud:
    """Return latents of which a third are the item's, a third the position's, a third their own.

    Prompts of ten points name their item at the fourth. Frequencies of latents fall like 1/rank.
    """
    generator = torch.Generator().manual_seed(0)
    row = torch.arange(n_points)
    prompts, places = row // PROMPT, row % PROMPT
    items = prompts % N_ITEMS
    popularity = 1 / torch.arange(1, D_SAE + 1)
    families = torch.rand(N_ITEMS + PROMPT, D_SAE, generator=generator) * popularity.sqrt()
    favourites = families.topk(64).indices
    indices = torch.empty(n_points, K, dtype=torch.long)
    for start in range(0, n_points, 1000):
        block = slice(start, start + 1000)
        weight = torch.rand(len(row[block]), D_SAE, generator=generator) ** (1 / popularity**0.5)
        for family in (items[block], N_ITEMS + places[block]):
            weight.scatter_add_(1, favourites[family], torch.full((len(weight), 64), 0.35))
        indices[block] = weight.topk(K).indices
    values = 5 + torch.randn(n_points, K, generator=generator).abs()
    named = torch.where(places >= 3, items, -1)
    labels = torch.where(places == 3, items, -1)
    latents = SparseLatents(values, indices, D_SAE)
    return LabeledCloud(latents, labels, named, prompts, places, name="bench", concept="bench")


def measure(n_points: int, n_nulls: int) -> dict[str, float]:
    """Time all sound figures of one space: values, intervals, nulls."""
    cloud = concept(n_points)
    metrics = [metric for metric in sound_metrics() if not isinstance(metric, PairMetric)]
    wall, cpu = time.perf_counter(), time.process_time()
    found = Evidence(metrics, n_nulls=n_nulls).results(cloud)
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    spent["MiB"] = peak_mib()
    values = ", ".join(f"{name} {float(f.estimate):.4g}" for name, f in found.items())
    seconds = f"{spent['wall']:.1f} | {spent['cpu']:.1f}"
    print(f"| {n_points} | {seconds} | {spent['MiB']:.0f} |  {values}")
    return spent


def plot(found: dict[int, dict[str, float]], path: Path) -> None:
    """Draw time and memory over the number of points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    sizes = sorted(found)
    for axis, names, unit in zip(
        figure.subplots(1, 2), (("wall", "cpu"), ("MiB",)), ("seconds", "MiB, peak"), strict=True
    ):
        for name, color, marker in zip(names, ("#0072B2", "#D55E00"), "os", strict=False):
            values = [found[n][name] for n in sizes]
            axis.plot(sizes, values, color=color, marker=marker, label=name)
        axis.set(xlabel=f"points, {D_SAE} latents, {K} active", ylabel=unit, ylim=(0, None))
        axis.legend()
    figure.savefig(path, dpi=130)


def compare_embeddings(rounds: int) -> None:
    """Compare UMAP's embedding with the plain calls on positions of which a third are padding."""
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.preprocessing import StandardScaler, normalize
        from umap import UMAP

        from saerepgeo.cases.structure.paper_embedding import (
            UMAP_SEED,
            UMAP_SETTINGS,
            paper_embedding,
        )
        from saerepgeo.cases.structure.umap_neighbors import seeded_eigenvectors

        points = concept(900).points.to_dense()
        points[600:] = points[600]
        found = {}

        def ours() -> None:
            found["ours"] = paper_embedding(points).numpy()

        def peer() -> None:
            rows = normalize(StandardScaler().fit_transform(points.numpy()))
            reducer = UMAP(**UMAP_SETTINGS, random_state=UMAP_SEED, n_jobs=1)
            with seeded_eigenvectors(UMAP_SEED):  # alone, UMAP differs from call to call
                found["peer"] = reducer.fit_transform(rows)

        peer()  # numba compiles
        compare(f"UMAP of 900×{D_SAE} positions", ours, peer, rounds)
    print("identical:", np.array_equal(found["ours"], found["peer"].astype(np.float64)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, nargs="+", default=[3000, 10_000, 30_000])
    parser.add_argument("--nulls", type=int, default=199)
    parser.add_argument("--plot", type=Path, help="write a picture of the growth here")
    parser.add_argument("--rounds", type=int, default=5, help="of the embedding; 0: none")
    chosen = parser.parse_args()
    if chosen.rounds:
        compare_embeddings(chosen.rounds)
    print("| points | wall (s) | CPU (s) | peak of the process (MiB) |")
    times = {n: measure(n, chosen.nulls) for n in chosen.points}
    if chosen.plot:
        plot(times, chosen.plot)
