"""The report page as text: what it says, that it is whole, small, and cannot be broken into."""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from saerepgeo.cli import report
from saerepgeo.report.files import write_rows
from saerepgeo.report.page import page_after, write_page
from saerepgeo.report.page.html import CASES, MAX_BYTES, RESERVE, _packed_plotly
from saerepgeo.report.page.sources import PageError, read_run
from saerepgeo.report.results import COLUMNS
from tests.report.page import runs
from tests.report.page.runs import HOSTILE, NAN, row


def findings(folder: Path) -> list[str]:
    """Return the sentences of the cases of a run, the finding of each first."""
    sections = [case.section(read_run(folder)) for case in CASES]  # type: ignore[attr-defined]
    return [line for s in sections if s is not None for line in (s.finding, *s.details)]


def of_rows(folder: Path, *rows: dict[str, Any]) -> list[str]:
    write_rows(folder / "results.csv", rows, COLUMNS)
    return findings(folder)


def figures(page: str) -> Any:
    packed = re.search(r'id="figures">([^<]*)<', page)
    assert packed is not None
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))["plots"]


def test_a_figure_far_from_its_null_is_a_finding_with_interval_and_null(tmp_path: Path) -> None:
    first, second, *_ = of_rows(tmp_path, row(), row(space="random", value=0.5, low=0.4, high=0.6))
    assert first == (
        "The SAE's latents keep how items lie to each other in days: Procrustes disparity "
        "0.02 [0.01, 0.03] (chance gives 0.1, p = 0.002)."
    )
    assert "a random dictionary has 0.5 [0.4, 0.6]: the SAE's is smaller" in second


@pytest.mark.parametrize("more", [{"p": 0.2}, {"high": 0.15}], ids=["large p", "null inside"])
def test_what_its_null_or_interval_does_not_decide_is_hedged(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    first, second, *_ = of_rows(tmp_path, row(**more))
    assert first.startswith("That the SAE keeps the items' arrangement cannot be told from chance")
    assert "undecided" in second


def test_what_is_undefined_says_why(tmp_path: Path) -> None:
    none = dict.fromkeys(("value", "low", "high", "null", "p"), NAN)
    first, second, *_ = of_rows(tmp_path, row(**none | {"reason": "needs 3 items"}))
    assert first.startswith("Undecided")
    assert "undefined (needs 3 items)" in second


def test_as_good_as_a_random_dictionary_is_not_put_down_to_training(tmp_path: Path) -> None:
    _, second, *_ = of_rows(tmp_path, row(), row(space="random", low=0.005, high=0.04))
    assert "so this cannot be put down to training" in second


@pytest.mark.parametrize(
    ("latents", "said"),
    [((11.0, 9.0, 13.0), "no change can be told"), ((20.0, 18.0, 22.0), "rises: 10 [8, 12]")],
)
def test_a_change_is_one_where_intervals_lie_apart(
    tmp_path: Path, latents: tuple[float, float, float], said: str
) -> None:
    assert said in of_rows(tmp_path, row(), *runs.dimensions(latents))[-1]


def test_case_1_is_judged_beside_a_random_dictionary(tmp_path: Path) -> None:
    first, second = findings(runs.noise_run(tmp_path))
    assert "lower effective rank than those of a random dictionary in 1 of 1 concepts" in first
    assert "(days 20.5 [20, 21], random 30.5 [30, 31]; ranges of the draws)" in first
    assert second.endswith("so the count does not show that training stratifies.")


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((100.0, 200.0), "apart raises the error of their own points in 1 of 1 concepts"),
        ((-200.0, -100.0), "apart lowers the error"),
        ((-50.0, 100.0), "is undecided (days +25 [-50, +100] of 2,000 at α = 1.5"),
    ],
)
def test_a_shift_costs_what_its_interval_says(
    tmp_path: Path, ends: tuple[float, float], said: str
) -> None:
    first, *_ = findings(runs.shift_run(tmp_path, *ends))
    assert said in first
    assert "random directions 3,000 [2,900, 3,200], p = 0.025" in first


def test_one_run_of_training_shows_no_cause(tmp_path: Path) -> None:
    (first,) = findings(runs.curve_run(tmp_path))
    assert "mse of held-out text went from 100 to 80" in first
    assert first.endswith("neither an interval nor a null, and no cause can be read from it.")


@pytest.mark.parametrize(("effect", "said"), [(0.5, "raises the error"), (0.0, "no evidence")])
def test_the_experiment_s_verdict_is_told_with_its_control(
    tmp_path: Path, effect: float, said: str
) -> None:
    first, *_ = findings(runs.experiment_run(tmp_path, effect))
    assert said in first
    assert re.search(r"shuffled labels change log mse by days \S+ \[\S+, \S+\]\.$", first)


@pytest.mark.parametrize(
    ("low", "said"),
    [(-0.9, "undecided whether geometry goes"), (0.3, "two_nn with fvu in days, 0.8 [0.3, 0.95]")],
)
def test_correlations_across_saes_are_counted(tmp_path: Path, low: float, said: str) -> None:
    first, *_ = findings(runs.comparison_run(tmp_path, low))
    assert said in first


def test_the_page_is_one_small_file_that_names_nothing_to_fetch(tmp_path: Path) -> None:
    folders = [
        runs.structure_run(tmp_path / "two"),
        runs.noise_run(tmp_path / "one"),
        runs.curve_run(runs.shift_run(tmp_path / "three")),
    ]
    path = write_page(folders, tmp_path / "report.html")
    assert path is not None
    page = path.read_text()
    assert len(page.encode()) <= MAX_BYTES
    assert not re.search(r"https?:|//[a-z]+\.|\ssrc=|<link|@import|url\(", page)
    assert "default-src 'none'" in page
    for run in ("one", "two", "three"):
        assert f"The run: {run}" in page
    assert "seed_everything: 7" in page


def test_every_view_is_right_for_plotly_and_says_n_and_alt(tmp_path: Path) -> None:
    import plotly.graph_objects as go

    makers = [runs.structure_run, runs.noise_run, runs.shift_run, runs.curve_run]
    makers += [runs.comparison_run, lambda folder: runs.experiment_run(folder, 0.5)]
    folders = [make(tmp_path / str(number)) for number, make in enumerate(makers)]
    path = write_page(folders, tmp_path / "report.html")
    assert path is not None
    titles = set()
    for plot in figures(path.read_text()).values():
        titles.add(plot["title"])
        for key, view in plot["views"].items():
            go.Figure(view["data"], view["layout"])  # refuses what plotly does not know
            assert len(key.split("\x1f")) == len(plot["selectors"])
            assert re.search(r"n = [\d,]+", view["note"])
            assert "nit" in view["note"], "units"
            assert view["alt"]
    assert len(titles) == 13


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = runs.structure_run(tmp_path / "run", HOSTILE, HOSTILE)
    path = write_page([run], tmp_path / "report.html")
    assert path is not None
    page = path.read_text()
    assert "window.hacked=1</script>" not in page
    assert "<img" not in page
    assert "&lt;img src=x" in page, "in sentences and settings"
    drawn = json.dumps(
        [view["data"] for p in figures(page).values() for view in p["views"].values()]
    )
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn


def test_too_much_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, path = runs.structure_run(tmp_path / "run"), tmp_path / "report.html"
    least = RESERVE + len(_packed_plotly())
    for limit, said in ((least + 8_000, "figures are left out"), (least + 100, "too large")):
        monkeypatch.setattr("saerepgeo.report.page.html.MAX_BYTES", limit)
        write_page([run], path)
        assert said in path.read_text()
        assert len(path.read_bytes()) <= limit


def test_a_damaged_file_is_named_and_does_not_fail_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.structure_run(tmp_path)
    (run / "shown_days.json").write_text('{"model": ')
    with pytest.raises(PageError, match=r"shown_days\.json` cannot be read"):
        read_run(run)
    page_after(run, 3.0)
    said = capsys.readouterr().err
    assert said.startswith("the results are written, but no report.html: `")
    assert len(said.splitlines()) == 1
    assert json.loads((run / "run.json").read_text())["seconds"].startswith("3 s, ")


def test_the_command_writes_beside_what_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs.structure_run(tmp_path / "outputs" / "two")
    runs.noise_run(tmp_path / "outputs" / "one")
    assert report.main([]) == 0
    assert report.main(["outputs/two"]) == 0
    both, one = (Path("outputs") / name / "report.html" for name in (".", "two"))
    assert "The run: one" in both.read_text()
    assert "Case 1" not in one.read_text()
    with pytest.raises(ValueError, match="folder of a run, got nowhere"):
        report.main(["nowhere"])
    Path("empty").mkdir()
    with pytest.raises(ValueError, match="hold results, got empty"):
        report.main(["empty"])
