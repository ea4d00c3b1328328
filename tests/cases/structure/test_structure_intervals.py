"""Intervals of case 2 hold what clouds of the same size give on average, drift or no drift.

`python tests/test_structure_intervals.py 60 50` (repetitions, subsamples) prints the coverage that
`cloud_figures` states.
"""

import sys
from collections import defaultdict

import torch
from saerepgeo.cases.structure.sound_structure import cloud_figures, figure_of, subsamples
from saerepgeo.cases.structure.space import Space, figures_of
from saerepgeo.cases.structure.structure_nulls import SoundSettings

from saerepgeo.cases.concept_points import ConceptCloud

N_ITEMS, N_PROMPTS, N_PLACES, DIM = 5, 40, 6, 20
SIZES = (10, 10)
NAMES = ("AGD", "Global Dim", "Avg Dim", "MST Weight", "Relative AEDP")


def concept(seed: int) -> tuple[torch.Tensor, ConceptCloud]:
    """Points of items, places and prompts, noise in all dimensions: the dimension drifts with n."""
    fixed = torch.Generator().manual_seed(1)
    items = 2 * torch.randn(N_ITEMS, DIM, generator=fixed)
    places = 2 * torch.randn(N_PLACES, DIM, generator=fixed)
    generator = torch.Generator().manual_seed(1000 + seed)
    prompts = torch.arange(N_PROMPTS).repeat_interleave(N_PLACES)
    where = torch.arange(N_PLACES).repeat(N_PROMPTS)
    labels = prompts % N_ITEMS
    own = torch.randn(N_PROMPTS, DIM, generator=generator)
    noise = torch.randn(len(prompts), DIM, generator=generator)
    x = items[labels] + places[where] + 0.5 * own[prompts] + 0.7 * noise
    named = torch.where(where >= 1, labels, -1)
    return x, ConceptCloud(torch.arange(len(prompts)), prompts, named, where == 1, 0)


def coverage(repetitions: int, n_subsamples: int) -> dict[str, dict[str, float]]:
    """Return, by figure, how often 95 % intervals hold the mean over repetitions, and more."""
    settings = SoundSettings(n_subsamples=n_subsamples)
    values, intervals = defaultdict(list), defaultdict(list)
    smaller = defaultdict(list)
    for seed in range(repetitions):
        x, about = concept(seed)
        space = Space(x, about)
        whole = figures_of(space.whole(), *SIZES)[0]
        draws = []
        for rows in subsamples(about, f"{seed}", settings):
            scaled = [round(size * len(rows) / len(x)) for size in SIZES]
            draws.append(figures_of(space.part(rows), *scaled)[0])
        for name in NAMES:
            made = [draw[name] for draw in draws]
            figure = figure_of(name, whole[name], made, settings.fraction, None)
            values[name].append(figure.value)
            intervals[name].append((figure.low, figure.high))
            smaller[name].append(sum(map(float, made)) / len(made))
    found = {}
    for name in NAMES:
        truth = sum(values[name]) / repetitions
        held = [low <= truth <= high for low, high in intervals[name]]
        about = [
            low <= v <= high for v, (low, high) in zip(values[name], intervals[name], strict=True)
        ]
        drift = sum(smaller[name]) / repetitions / truth - 1
        found[name] = {
            "coverage": sum(held) / repetitions,
            "about its value": sum(about) / repetitions,
            "drift": drift,
        }
    return found


def test_intervals_are_about_their_value_and_hold_what_they_promise() -> None:
    found = coverage(repetitions=24, n_subsamples=20)
    for name, share in found.items():
        assert share["about its value"] == 1, name
        assert share["coverage"] >= 0.75, name
    drifts = [abs(share["drift"]) for share in found.values()]
    assert max(drifts) > 0.02, "without drift this test could not fail as the old interval did"


def test_a_large_cloud_keeps_its_values_and_is_tested_on_a_sample(monkeypatch) -> None:
    from saerepgeo.modules import sound_structure, space

    x, about = concept(0)
    settings = SoundSettings(n_permutations=9, n_nulls=5, n_subsamples=4, max_points=120)
    plain = cloud_figures(x, about, "plain", subsamples(about, "c", settings), settings).figures
    for module in (space, sound_structure):
        monkeypatch.setattr(module, "LARGE", 100)
    rows = subsamples(about, "c", settings)
    assert [len(r) for r in rows] == [120] * 4
    large = cloud_figures(x, about, "plain", rows, settings).figures
    for name, figure in large.items():
        assert abs(figure.value - plain[name].value) <= 1e-9 * abs(plain[name].value), name
        assert figure.n == plain[name].n
        assert 0 < figure.p <= 1
    assert large["MST Weight"].tested != large["MST Weight"].value
    assert large["Clusters"].low != large["Clusters"].low, "a count of another size is no interval"


if __name__ == "__main__":
    for name, share in coverage(int(sys.argv[1]), int(sys.argv[2])).items():
        print(name, {key: round(value, 3) for key, value in share.items()})
