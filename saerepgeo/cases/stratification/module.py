"""Case 1: which strata of fixed rank the latents visit as noise is added to the residuals."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saerepgeo.cases.analysis import AnalysisModule
from saerepgeo.cases.stratification.tensor_ranks import MODES, Rule, TensorRanks
from saerepgeo.cases.structure.draws import in_parallel
from saerepgeo.sae.model import SAEModel
from saerepgeo.sae.sae_source import SAESource
from saerepgeo.types import ConceptActivations, Float, generator_for

__all__ = ["Condition", "Stratification", "StratificationModule", "noise_unit", "strata"]

NOISE_LEVELS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
SMOOTH_RANKS = ("effective_rank", "stable_rank", "participation_ratio")
GROUP = ("model", "concept", "space", "mode", "noise_scale", "tolerance")
"""What a sequence of ranks over noise levels is about; `random` is the space of the latents of a
dictionary with random directions."""

NoiseScale = Literal["absolute", "relative"]


class Condition(NamedTuple):
    """One draw of noise."""

    noise_scale: NoiseScale
    noise: float
    draw: int


class Stratification(NamedTuple):
    """What case 1 finds for one concept."""

    model: str
    rows: list[dict[str, Any]]
    """Of `rank_by_noise.csv`."""
    strata: list[dict[str, Any]]
    """Of `strata.csv`."""
    spectra: dict[str, Float[Tensor, "draw value"]]
    """`{space}/{mode}/{noise_scale}/{noise}` to singular values, padded with 0."""
    latents: Float[Tensor, "point d_sae"]
    """Effective latents without noise, at the real positions in order of prompts."""


class StratificationModule(AnalysisModule):
    """Add noise to residuals, encode, and take the ranks of the tensor [prompt, position, latent].

    x' = x + level · unit · N(0, 1) at every real position; unit 1 (`absolute`) or the root mean
    square entry of the concept's residuals (`relative`). For x', its effective latents and those of
    a random dictionary: rank of the symmetric positive semidefinite matrix of every mode by every
    rule, effective and stable rank, participation ratio, active latents (see `mode_spectra` for how
    masked positions enter). Matrices of one rank r form a stratum; the ranks visited over the noise
    levels are the strata. The same noise goes into all three spaces.

    Args:
        sae: the SAE to look at.
        noise_levels: levels of noise.
        noise_scales: units of the levels.
        n_draws: draws of noise a level; level 0 has one.
        rules: how ranks are decided: `eps`, `gavish-donoho`, or a share of the largest singular
            value.
        name: the model in tables; by default its language model and layer.
        seed: of noise and random dictionary.
    """

    def __init__(
        self,
        sae: SAESource,
        noise_levels: Sequence[float] = NOISE_LEVELS,
        noise_scales: Sequence[NoiseScale] = ("absolute", "relative"),
        n_draws: int = 3,
        rules: Sequence[Rule] = ("eps", "gavish-donoho", 0.01),
        name: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(sae, name, seed)
        if n_draws < 1 or not noise_levels or min(noise_levels) < 0:
            raise ValueError(
                "`noise_levels` must be at least one level ≥ 0 and `n_draws` ≥ 1, got "
                f"{list(noise_levels)} and {n_draws}"
            )
        self.noise_levels, self.noise_scales = tuple(noise_levels), tuple(noise_scales)
        self.n_draws, self.rules = n_draws, tuple(rules)

    def conditions(self) -> Iterator[Condition]:
        """Give every draw of noise; level 0 has one."""
        for scale in self.noise_scales:
            for level in self.noise_levels:
                for draw in range(self.n_draws if level > 0 else 1):
                    yield Condition(scale, level, draw)

    @torch.no_grad()
    def test_step(self, batch: ConceptActivations, batch_idx: int) -> dict[str, Stratification]:
        """Return and log the figures of one concept."""
        if not bool(batch.is_real.any()):
            raise ValueError(f"concept {batch.concept}: no position is real; check its prompts")
        residuals = batch.residuals[batch.is_real]
        random = self.random_sae(batch.residuals, batch.is_real)
        saes = {"residuals": None, "latents": self.sae, "random": random}
        conditions = list(self.conditions())
        self.begin(f"{batch.concept}, noise", len(conditions))
        found = in_parallel(
            lambda condition: self._under(condition, batch, residuals, saes),
            conditions,
            self.advance,
        )
        rows = [row for more, _ in found for row in more]
        spectra: dict[str, list[Tensor]] = defaultdict(list)
        for _, values in found:
            for key, value in values.items():
                spectra[key].append(value)
        summary = strata(rows)
        self._log(batch.concept, rows, summary)
        padded = {key: torch.nn.utils.rnn.pad_sequence(v, True) for key, v in spectra.items()}
        latents = self.effective_latents(self.sae, batch.residuals, batch.is_real)
        return {"result": Stratification(self.name, rows, summary, padded, latents)}

    def _under(
        self,
        condition: Condition,
        batch: ConceptActivations,
        residuals: Tensor,
        saes: Mapping[str, SAEModel | None],
    ) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """Return rows and spectra of all spaces under one draw of noise."""
        noisy = self._noisy(residuals, batch.concept, condition)
        prompts = batch.residuals.clone()
        prompts[batch.is_real] = noisy
        rows, spectra = [], {}
        for space, sae in saes.items():
            ranks = TensorRanks(self.rules, sync_on_compute=False).to(self.device)
            points = noisy
            if sae is not None:
                points = self.effective_latents(sae, prompts, batch.is_real)
            ranks.update(points, *batch.is_real.nonzero().T)
            rows += self._rows(batch.concept, space, condition, ranks)
            assert ranks.spectra is not None
            for mode, values in ranks.spectra.values.items():
                spectra[f"{space}/{mode}/{condition.noise_scale}/{condition.noise}"] = values
        return rows, spectra

    def _noisy(self, residuals: Tensor, concept: str, condition: Condition) -> Tensor:
        scale, level, draw = condition
        if level == 0:
            return residuals
        index = self.noise_levels.index(level)
        generator = generator_for(self.seed, f"noise/{scale}/{concept}", index, draw)
        noise = torch.randn(residuals.shape, generator=generator).to(residuals)
        return residuals + level * noise_unit(residuals, scale) * noise

    def _rows(
        self, concept: str, space: str, condition: Condition, ranks: TensorRanks
    ) -> list[dict[str, Any]]:
        figures = {name: float(value) for name, value in ranks.compute().items()}
        assert ranks.spectra is not None
        counts = {"n_active": ranks.spectra.n_active, "n_points": ranks.spectra.n_points}
        about = {"model": self.name, "concept": concept, "space": space}
        return [
            {
                **about,
                "mode": mode,
                **condition._asdict(),
                "tolerance": str(rule),
                "rank": int(figures[f"rank/{mode}/{rule}"]),
                "n_rows": ranks.spectra.shapes[mode][0],
                **{name: figures[f"{name}/{mode}"] for name in SMOOTH_RANKS},
                **counts,
            }
            for mode in MODES
            for rule in self.rules
        ]

    def _log(self, concept: str, rows: list[dict[str, Any]], summary: list[dict[str, Any]]) -> None:
        clean = [row for row in rows if row["noise"] == 0 and row["mode"] == "feature"]
        for row in clean:
            key = f"{row['space']}/{row['tolerance']}/{concept}"
            self.log(f"test/rank/{key}", float(row["rank"]), batch_size=1)
            self.log(
                f"test/effective_rank/{row['space']}/{concept}",
                row["effective_rank"],
                batch_size=1,
            )
        for row in summary:
            if row["mode"] == "feature":
                key = f"{row['space']}/{row['noise_scale']}/{row['tolerance']}/{concept}"
                self.log(f"test/n_strata/{key}", float(row["n_strata"]), batch_size=1)


def noise_unit(residuals: Float[Tensor, "point d_model"], scale: NoiseScale) -> float:
    """Return what noise level 1 is: 1, or √(mean of the squared entries) of the residuals.

    >>> noise_unit(torch.tensor([[3.0, -3.0]]), "relative")
    3.0
    """
    return 1.0 if scale == "absolute" else float(residuals.double().square().mean().sqrt())


def strata(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for every space, mode, noise scale and rule, the ranks visited over noise levels.

    One row each: `strata`, the distinct ranks in ascending order, and their number; the least and
    largest rank; the dimension nr − r(r−1)/2 of the stratum at noise 0 among the n × n matrices of
    rank r; `sd_levels`, the standard deviation over levels of the mean rank of a level; `sd_draws`,
    the root mean variance within levels. Ranks vary with the noise as far as `sd_levels` exceeds
    `sd_draws`; both are NaN for fewer than two levels, or draws.

    Source of the dimension: Bonnabel & Sepulchre 2009.
    """
    groups: dict[tuple, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in GROUP)].append(row)
    return [dict(zip(GROUP, key, strict=True)) | _visited(group) for key, group in groups.items()]


def _visited(rows: list[dict[str, Any]]) -> dict[str, Any]:
    levels: dict[float, list[int]] = defaultdict(list)
    for row in rows:
        levels[row["noise"]].append(row["rank"])
    ranks = sorted({row["rank"] for row in rows})
    means = [statistics.fmean(draws) for draws in levels.values()]
    variances = [statistics.variance(draws) for draws in levels.values() if len(draws) > 1]
    clean = [row for row in rows if row["noise"] == 0]
    return {
        "strata": " ".join(map(str, ranks)),
        "n_strata": len(ranks),
        "rank_min": ranks[0],
        "rank_max": ranks[-1],
        "stratum_dimension": _stratum_dimension(clean[0]) if clean else None,
        "sd_levels": statistics.stdev(means) if len(means) > 1 else math.nan,
        "sd_draws": math.sqrt(statistics.fmean(variances)) if variances else math.nan,
        "n_levels": len(levels),
        "n_draws": max(map(len, levels.values())),
    }


def _stratum_dimension(row: dict[str, Any]) -> int:
    rank: int = row["rank"]
    return row["n_rows"] * rank - rank * (rank - 1) // 2
