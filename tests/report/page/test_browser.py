"""The report page in a real headless Chromium: drawn, hovered, searched, sorted, and inert."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from saerepgeo.cli import main
from saerepgeo.report.page import write_page
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from tests.report.page import runs

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: apt-get install -y chromium"
)
OPTIONS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
DRAWN = "html[data-ready=true]"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of every case, and their page."""
    folder = tmp_path_factory.mktemp("runs")
    made = [
        runs.structure_run(folder / "case2"),
        runs.shift_run(runs.noise_run(folder / "others")),
        runs.experiment_run(folder / "experiment", 0.5),
    ]
    write_page(made, folder / "report.html")
    return folder


def opened(browser: Any, path: Path, **context: Any) -> Any:
    """Return a page once all is drawn; what it complains of, and asks for, is kept."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(30_000)
    page.trouble, page.asked = [], []
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    page.on("console", lambda m: page.trouble.append(m.text) if m.type == "error" else None)
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(DRAWN, state="attached")
    return page


@pytest.fixture(scope="module")
def page(browser: Any, folder: Path) -> Any:
    return opened(browser, folder / "report.html", viewport={"width": 1200, "height": 900})


def rows_of(page: Any) -> list[list[str]]:
    return page.eval_on_selector_all(
        "#long tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.title))"
    )


def test_every_figure_is_drawn_without_an_error_and_nothing_is_fetched(page: Any) -> None:
    n_plots = page.locator(".plot").count()
    assert n_plots == page.locator(".plot[data-drawn=true] .main-svg:first-child").count() > 8
    assert page.locator(".gl-container canvas").count() >= 1, "three dimensions"
    empty = page.eval_on_selector_all(
        ".plot:not(.wide) .picture", "all => all.filter(e => !e.querySelector('.trace')).length"
    )
    assert empty == 0
    assert page.trouble == []
    outside = [url for url in page.asked if not url.startswith(("file:", "data:", "blob:"))]
    assert outside == []
    labels = page.eval_on_selector_all(".picture", "all => all.map(e => e.ariaLabel)")
    assert all("n = " in label or "draws" in label for label in labels)


def test_a_hover_says_what_a_point_is(page: Any) -> None:
    plot = page.locator(".plot", has_text="Every metric")
    plot.scroll_into_view_if_needed()
    plot.locator(".points path.point").first.hover(force=True)
    text = plot.locator(".hoverlayer .hovertext").first
    text.wait_for()
    assert "days, residuals: 10 [8, 12]" in text.text_content()


def test_a_choice_draws_another_view(page: Any) -> None:
    plot = page.locator(".plot", has_text="Every metric")
    plot.locator("select").first.select_option("procrustes")
    plot.locator(".ytitle", has_text="procrustes").wait_for()
    scene = page.locator(".plot.wide")
    scene.locator("select").nth(1).select_option("random dictionary")
    scene.locator(".annotation-text", has_text="after: random dictionary").wait_for()
    assert "random dictionary" in scene.locator(".picture").get_attribute("aria-label")


def test_the_keyboard_reaches_points_and_turns_scenes(page: Any) -> None:
    plot = page.locator(".plot", has_text="Spectrum of the points")
    plot.locator(".picture").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert plot.locator(".spoken").text_content().startswith("residuals, component 2: ")
    eye = "() => document.querySelector('.wide .picture')._fullLayout.scene.camera.eye.x"
    before = page.evaluate(eye)
    page.locator(".wide .picture").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)
    assert page.evaluate(eye) != before


def test_the_table_is_searched_sorted_and_downloaded(page: Any, tmp_path: Path) -> None:
    n_rows = len(rows_of(page))
    page.fill("#search", "LATENTS gride")
    found = rows_of(page)
    assert len(found) == 2 < n_rows
    assert {row[6] for row in found} == {"gride/1", "gride/2"}
    page.fill("#search", "two_nn_within")
    values: list[list[str]] = []
    for _ in range(2):
        page.click("#long thead button:text('value')")
        values.append([row[7] for row in rows_of(page)])
    assert values == [["10.0", "11.0", "20.0"], ["20.0", "11.0", "10.0"]]
    assert page.locator("th[aria-sort=descending]").text_content().startswith("value")
    with page.expect_download() as waiting:
        page.click("#download")
    waiting.value.save_as(tmp_path / "rows.csv")
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("model,hook,sae,concept")
    page.select_option("#table-name", label="experiment/verdicts.csv")
    page.fill("#search", "")
    page.wait_for_selector("#long thead button:text('sentence')")
    assert page.trouble == []


def test_light_and_dark_follow_the_system_and_the_button(browser: Any, folder: Path) -> None:
    write_page([folder / "others"], folder / "others.html")
    page = opened(browser, folder / "others.html", color_scheme="dark")
    color = "() => getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(color) == "rgb(20, 23, 26)"
    page.click("#theme")
    assert page.evaluate(color) == "rgb(251, 251, 250)"
    assert page.trouble == []


def test_a_hostile_prompts_file_s_page_is_inert(
    browser: Any, tmp_path: Path, tiny_data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: prompts, `test`, and the page that it leaves."""
    items = ["snow</script><script>hacked=1</script>", "rain<img src=x onerror=hacked=1>"]
    items.append("sun<b>&amp;<a href=javascript:hacked=1>")
    prompts = [f"{text} {item}" for item in items for text in ("old", "new", "red", "blue")]
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"days": {"items": items, "prompts": prompts}}))
    sae = save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), tmp_path / "<script>hacked=1<")
    draws = dict.fromkeys(("n_permutations", "n_nulls", "n_subsamples"), 3)
    out = {"dirpath": str(tmp_path / "out")}
    artifacts = "saerepgeo.cases.structure.artifacts.StructureArtifacts"
    settings = {
        "verbose": False,
        "trainer": {
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "default_root_dir": str(tmp_path),
            "callbacks": [{"class_path": artifacts, "init_args": out}],
        },
        "model": {
            "class_path": "saerepgeo.StructureModule",
            "init_args": {"sae": {"path": str(sae)}, "protocols": ["sound"]} | draws,
        },
        "data": {
            "class_path": "saerepgeo.ActivationDataModule",
            "init_args": tiny_data | {"prompts": str(file), "concepts": ["days"]},
        },
    }
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    monkeypatch.setattr(sys, "argv", ["saerepgeo", "test", "--config", str(config)])
    monkeypatch.setattr("saerepgeo.report.tensorboard.save_figure", lambda *_: None)
    assert main(["test", "--config", str(config)]) == 0
    page = opened(browser, tmp_path / "out" / "report.html")
    assert page.evaluate("() => typeof hacked") == "undefined"
    assert page.locator("main script, main img").count() == 0
    assert page.trouble == []
    page.fill("#search", "<script>")
    assert rows_of(page)
    tree = page.locator(".plot", has_text="Spanning tree")
    assert tree.locator(".textpoint", has_text="<script>").count() == 1
    assert tree.locator(".textpoint", has_text="&amp;<a href").count() == 1, "as it is written"
    assert "python -m saerepgeo test --config" in page.locator("dl").first.text_content()
