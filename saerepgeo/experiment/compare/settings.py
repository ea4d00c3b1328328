"""What a comparison is told: a list of SAEs, metrics, draws, data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jsonargparse import ActionConfigFile
from torchmetrics import Metric

from saerepgeo.bounds import Count, PositiveInt, Text, check_settings
from saerepgeo.cases.structure.protocols import sound_metrics
from saerepgeo.cli.errors import OneLineErrors
from saerepgeo.experiment.engine import Engine
from saerepgeo.metrics import SpectralRanks
from saerepgeo.sae.sae_source import SAESource

OURS = {"hook_name", "test_with_padding"}
"""Settings of the data module that the comparison sets itself."""


@dataclass
class ComparedSAE(SAESource):
    """An SAE of the list; a release of the registry by regular expression may be many.

    Attributes:
        release: a release of SAELens' registry, or a regular expression for several.
        sae_id: its SAE, or a regular expression: every one that fits whole.
        name: what tables call it; by default its folder, or its place in the registry.
        hook_name: the hook that it reads, where its own files name none.
        group: SAEs of one group, at one hook, are repeats: one method, other seeds. Intervals
            across SAEs then take groups as units.
    """

    name: str | None = None
    hook_name: str | None = None
    group: Text | None = None


@dataclass(kw_only=True)
class Comparison(Engine):
    """A list of SAEs × concepts × metrics, each SAE at its own hook.

    Attributes:
        saes: the SAEs: folders, releases of the registry, or new ones as untrained baselines.
        output: folder of the results, or a URL that fsspec opens (s3://…).
        metrics: of clouds and pairs, as in case 2; by default ranks and case 2's sound ones.
        n_permutations: draws of the nulls that are fast, at most.
        n_nulls: draws of the nulls that are slow, at most.
        n_extreme: draws as extreme as a figure after which its null stops (`sequential_test`); 0:
            all draws are made.
        n_subsamples: subsamples behind an interval.
        n_random: random dictionaries beside each SAE; of more than one, latents are tested against
            them.
        n_contexts: held-out contexts on which the language model's losses are measured; 0: none.
        seed: of all random draws.
        accelerator: cpu, gpu or auto; one device is used.
    """

    saes: list[ComparedSAE]
    output: Text = "outputs/compare"
    metrics: list[Metric] | None = None
    n_permutations: Count = 199
    n_nulls: Count = 99
    n_extreme: Count = 10
    n_subsamples: PositiveInt = 50
    n_random: Count = 1
    n_contexts: Count = 16
    seed: Count = 0
    accelerator: Literal["cpu", "gpu", "auto"] = "auto"

    def __post_init__(self) -> None:
        check_settings(Comparison, vars(self))
        if not self.saes:
            raise ValueError("`saes` must name SAEs to compare, got none")
        if self.metrics is None:
            self.metrics = [SpectralRanks(), *sound_metrics()]

    @property
    def draws(self) -> dict[str, int]:
        """The numbers of draws, by name."""
        names = ("n_permutations", "n_nulls", "n_extreme", "n_subsamples", "n_random", "seed")
        return {name: getattr(self, name) for name in names}


def parse(arguments: Sequence[str]) -> tuple[Comparison, dict[str, Any], str]:
    """Return the comparison, the settings of its data, and in words what its metrics are.

    Raises ValueError, in one line, on what is no setting or cannot be one.
    """
    from saerepgeo.data import ActivationDataModule

    parser = OneLineErrors(
        prog="python -m saerepgeo compare",
        description="Compare SAEs: reconstruction and geometry of each, and figures across them.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_class_arguments(Comparison)
    parser.add_class_arguments(ActivationDataModule, "data", skip=OURS, instantiate=False)
    given = parser.parse_args(_with_lists_whole(arguments))
    metrics = repr(given.as_dict()["metrics"])
    made = vars(parser.instantiate(given))
    data = made.pop("data").as_dict()
    made.pop("config")
    check_settings(Comparison, made)  # the parser lets null pass for a number
    return Comparison(**made), data, metrics


def _with_lists_whole(arguments: Sequence[str]) -> list[str]:
    """Let `--saes` take the place of a file's list: jsonargparse would mix their entries."""
    found: list[str] = []
    for argument in arguments:
        is_list = argument == "--saes" or argument.startswith("--saes=")
        found += ["--saes=[]", argument] if is_list else [argument]
    return found
