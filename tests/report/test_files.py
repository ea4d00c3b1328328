"""Tables, tensors and figures on disk: replaced by key, whole after a crash, safe beside others."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from saerepgeo.report.files import (
    merge_rows,
    read_rows,
    save_array,
    save_figure,
    save_tensors,
)

KEY = ("concept", "model")


def test_rows_of_another_model_are_added_and_own_rows_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.csv"
    merge_rows(path, [{"concept": "months", "model": "a", "n": 1}], KEY)
    merge_rows(path, [{"concept": "months", "model": "b", "n": 2}], KEY)
    merge_rows(
        path,
        [{"concept": "months", "model": "a", "n": 3}, {"concept": "months", "model": "a", "n": 4}],
        KEY,
    )
    assert [(row["model"], row["n"]) for row in read_rows(path)] == [
        ("b", "2"),
        ("a", "3"),
        ("a", "4"),
    ]


def test_column_order_stays_and_new_columns_come_last(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    merge_rows(path, [{"model": "a", "concept": "days", "x": 0.1}], KEY)
    merge_rows(path, [{"p": 0.5, "concept": "days", "model": "b"}], KEY)
    assert path.read_text() == "model,concept,x,p\na,days,0.1,\nb,days,,0.5\n"


def test_floats_survive_exactly_and_nan_and_none_differ(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    row = {"concept": 'a,b\n"c"', "model": "m", "x": 1 / 3, "y": float("nan"), "z": None}
    merge_rows(path, [row], KEY)
    (back,) = read_rows(path)
    assert back["concept"] == row["concept"]
    assert float(back["x"]) == 1 / 3
    assert (back["y"], back["z"]) == ("nan", "")


def test_a_row_without_its_key_is_refused_before_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    merge_rows(path, [{"concept": "days", "model": "a"}], KEY)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="none named model"):
        merge_rows(path, [{"concept": "days"}], KEY)
    with pytest.raises(ValueError, match="none named draw"):
        merge_rows(path, [{"concept": "days", "draw": 1}], ("concept", "draw"))
    assert path.read_bytes() == before


def test_a_torn_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("concept,model\ndays,a\ndays\n")
    with pytest.raises(ValueError, match=r"row 3 of .*table\.csv"):
        merge_rows(path, [{"concept": "days", "model": "b"}], KEY)


def test_a_crash_while_writing_leaves_the_former_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.csv"
    merge_rows(path, [{"concept": "days", "model": "a"}], KEY)
    before = path.read_bytes()

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        merge_rows(path, [{"concept": "days", "model": "b"}], KEY)
    assert path.read_bytes() == before
    assert not list(tmp_path.rglob("*.partial"))


def test_processes_that_add_at_once_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    code = (
        "import sys\n"
        "from saerepgeo.report.files import merge_rows\n"
        "for i in range(40):\n"
        "    row = {'concept': i, 'model': sys.argv[2]}\n"
        "    merge_rows(sys.argv[1], [row], ('concept', 'model'))\n"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    rows = {(row["concept"], row["model"]) for row in read_rows(path)}
    assert rows == {(str(i), name) for i in range(40) for name in "ab"}


def test_tensors_that_share_memory_come_back_equal(tmp_path: Path) -> None:
    x = torch.arange(12.0).reshape(3, 4)
    save_tensors(tmp_path / "t.safetensors", {"x": x, "view": x[1:], "turned": x.T})
    back = load_file(tmp_path / "t.safetensors")
    assert torch.equal(back["x"], x)
    assert torch.equal(back["view"], x[1:])
    assert torch.equal(back["turned"], x.T)


def test_labels_load_without_pickle(tmp_path: Path) -> None:
    save_array(tmp_path / "labels.npy", torch.tensor([0, -1, 2]))
    back = np.load(tmp_path / "labels.npy", allow_pickle=False)
    assert back.tolist() == [0, -1, 2]


def test_a_figure_is_written_twice_and_its_svg_does_not_depend_on_the_run(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    for name in ("a", "b"):
        figure = Figure()
        figure.add_subplot().plot([1, 2, 3])
        save_figure(figure, tmp_path / f"rank v0.1 {name}")
    assert (tmp_path / "rank v0.1 a.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "rank v0.1 a.svg").read_bytes()
    assert svg == (tmp_path / "rank v0.1 b.svg").read_bytes()
