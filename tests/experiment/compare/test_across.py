"""`compare`: figures across SAEs."""

import numpy as np
import pytest
from small_comparison import Row

from saerepgeo.cases.statistics import spearman
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


def test_groups_are_the_units_of_figures_across_saes() -> None:
    """Seven methods of two seeds, and one SAE without a group; two_nn is the method's alone."""
    generator = np.random.default_rng(2)
    rows: list[Row] = []
    for number in range(15):
        method, noise = number // 2, float(generator.normal())
        about = {"model": "m", "hook": "h", "sae": f"s{number}"}
        for concept, space, metric, value in (
            ("text", "recons", "fvu", 0.1 * (method % 5) + 0.01 * noise),
            ("text", "recons", "l0", 2.0**method),
            ("days", "latents", "two_nn", method + 0.01 * noise),
            ("days", "latents", "rank", noise),
        ):
            rows.append(
                about | {"concept": concept, "space": space, "metric": metric} | {"value": value}
            )
    groups = {f"s{number}": f"method {number // 2}" for number in range(14)}
    own = across.across_saes(rows, groups)
    found = {(r["concept"], r["metric"]): r for r in own}
    share = found["days", "two_nn~groups"]
    assert share["value"] > 0.99
    assert share["low"] > 0.9
    assert (share["n"], share["p"] < 0.01, abs(share["null"]) < 0.2) == (14, True, True)
    assert found["days", "rank~groups"]["value"] < 0.6
    assert found["text", "fvu~groups"]["value"] > 0.9
    assert ("text", "fvu~fvu|l0") not in found
    given = found["days", "rank~fvu|l0"]
    expected, _ = spearman(
        *([row["value"] for row in rows if row["metric"] == name] for name in ("rank", "fvu")),
        given=[row["value"] for row in rows if row["metric"] == "l0"],
    )
    assert given["value"] == pytest.approx(float(expected))
    assert (given["n"], given["reason"]) == (15, None)
    plain = {(r["concept"], r["metric"]): r for r in across.across_saes(rows)}
    assert ("days", "two_nn~groups") not in plain
    key = "days", "rank~fvu"
    assert plain[key]["value"] == found[key]["value"]
    assert plain[key]["low"] != found[key]["low"]
    few = across.across_saes(rows, {f"s{number}": f"method {number // 4}" for number in range(15)})
    assert {r["reason"] for r in few if r["metric"] == "two_nn~l0"} == {"4 groups, 5 needed"}
    assert "shares of variance between groups have an interval without 0" in printed_across(own)
