"""`compare`: figures across SAEs."""

import numpy as np
import pytest
from small_comparison import Row

from saerepgeo.experiment.compare import across
from saerepgeo.experiment.compare.table import printed_across


def test_figures_across_saes_are_of_one_hook_and_of_all() -> None:
    generator = np.random.default_rng(1)
    rows: list[Row] = []
    for number in range(12):
        about = {"model": "m", "hook": f"h{number % 2}", "sae": f"s{number}"}
        fvu = float(generator.random())
        for concept, space, metric, value in (
            ("text", "recons", "fvu", fvu),
            ("text", "recons", "l0", 32.0),
            ("days", "latents", "two_nn", 3 - fvu),
            ("days", "latents", "n_points", 7.0),
            ("days", "random", "two_nn", 1.0),
        ):
            rows.append(
                about | {"concept": concept, "space": space, "metric": metric} | {"value": value}
            )
    found = {(r["hook"], r["concept"], r["metric"]): r for r in across.across_saes(rows)}
    for hook, n in (("h0", 6), ("h1", 6), ("all hooks", 12)):
        row = found[hook, "days", "two_nn~fvu"]
        assert (row["value"], row["n"], row["sae"]) == (pytest.approx(-1), n, "")
        assert found[hook, "days", "two_nn~l0"]["reason"] == "equal values on one side"
    assert not any("n_points" in metric for _, _, metric in found)
    lines = printed_across(list(found.values())).splitlines()
    assert lines[0] == "3 of 3 rank correlations have an interval without 0"
    assert lines[2].split()[:4] == ["days", "two_nn~fvu", "h0", "-1"]
    assert printed_across([]) == "no figures across SAEs: none on held-out text"
