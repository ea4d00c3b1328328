"""A full or read-only disk: one line with path and bytes, what was there stays, nothing is half."""

import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from full_disks import files_up_to, fill, small_disk

from saerepgeo.cli import cache as cli_cache
from saerepgeo.data import ActivationDataModule, cache
from saerepgeo.files import DiskError, replacing, replacing_folder, write_bytes, write_json
from saerepgeo.report.files import merge_rows, read_rows, save_array, save_figure, save_tensors
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.load import load_sae

N_KILLS = 5 * int(os.environ.get("SAEREPGEO_KILLED_RUNS", "1"))


def rows(path: Path) -> None:
    many = [{"model": "a", "concept": str(number), "x": 0.5} for number in range(3000)]
    merge_rows(path, many, ("model", "concept"))


def figure(path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = Figure()
    drawn.subplots().plot([0, 1])
    save_figure(drawn, path.with_suffix(""))


def export(path: Path) -> None:
    save_sae(new_sae("topk", d_in=32, d_sae=96, k=4), path)


def checkpoint(path: Path) -> None:
    with replacing(path, 40_000, durable=True) as scratch, open(scratch, "wb") as file:
        torch.save({"x": torch.zeros(10_000)}, file)


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "table": ("results.csv", rows),
    "tensors": ("x.safetensors", lambda path: save_tensors(path, {"x": torch.zeros(10_000)})),
    "array": ("x.npy", lambda path: save_array(path, np.zeros(5_000))),
    "figure": ("figure.png", figure),
    "JSON": ("figures.json", lambda path: write_json(path, list(range(9_000)))),
    "bytes": ("report.html", lambda path: write_bytes(path, bytes(40_000))),
    "SAE": ("sae", export),
    "checkpoint": ("last.ckpt", checkpoint),
}


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest) -> tuple[str, Callable[[Path], None]]:
    """The name of what is written, of 10 kB and more, and what writes it to a path."""
    return WRITERS[request.param]


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refused(write: Callable[[Path], None], path: Path, reason: str) -> str:
    with pytest.raises(DiskError) as error:
        write(path)
    line = str(error.value)
    assert "\n" not in line
    assert f"`{path}` could not be written: {reason}" in line
    return line


def test_full_disk(writer: Any, tmp_path: Path) -> None:
    name, write = writer
    with small_disk(tmp_path / "disk", 8) as disk:
        line = refused(write, disk / name, "No space left on device (")
        assert int(line.partition("(")[2].partition(" bytes are needed")[0].replace(",", "")) > 8192
        assert content(disk) == {}
        assert not [path for path in disk.rglob("*") if path.suffix != ".lock"]


def test_files_that_may_not_grow(writer: Any, tmp_path: Path) -> None:
    name, write = writer
    with files_up_to(4096):
        refused(write, tmp_path / name, "File too large (")
    assert content(tmp_path) == {}
    write(tmp_path / name)  # running again finishes it
    with files_up_to(4096):
        before = content(tmp_path)
        refused(write, tmp_path / name, "File too large (")
    assert content(tmp_path) == before


def test_read_only_disk(writer: Any, tmp_path: Path) -> None:
    name, write = writer
    with small_disk(tmp_path / "disk", 8, read_only=True) as disk:
        refused(write, disk / name, "Read-only file system; check its folder")
        refused(write, disk / "deep" / name, "Read-only file system; check its folder")


def test_a_file_where_a_folder_must_be(writer: Any, tmp_path: Path) -> None:
    name, write = writer
    (tmp_path / "taken").write_text("thesis")
    refused(write, tmp_path / "taken" / name, "")
    refused(write, tmp_path / "taken" / "deep" / name, "")
    assert content(tmp_path) == {"taken": b"thesis"}


def test_a_permission_that_is_missing(writer: Any, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("nothing is forbidden to root")
    name, write = writer
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(write, tmp_path / "locked" / name, "Permission denied; check its folder")


def test_what_lies_on_another_path_is_not_blamed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="text"), replacing(tmp_path / "x"):
        (tmp_path / "text.txt").read_text()
    with pytest.raises(ConnectionResetError), replacing(tmp_path / "x"):
        raise ConnectionResetError(104, "Connection reset by peer")
    assert content(tmp_path) == {}


def test_rows_survive_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 32) as disk:
        path = disk / "results.csv"
        merge_rows(path, [{"model": "b", "concept": "0", "x": 1}], ("model", "concept"))
        fill(disk)
        refused(rows, path, "No space left on device")
        assert read_rows(path) == [{"model": "b", "concept": "0", "x": "1"}]
        assert not list(disk.glob("*.partial"))


def test_durable_files_are_on_the_disk_before_they_take_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def sync(descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        synced.append((name, (tmp_path / "last.ckpt").exists()))

    monkeypatch.setattr(os, "fsync", sync)
    checkpoint(tmp_path / "last.ckpt")
    assert synced == [("last.ckpt", False), (tmp_path.name, True)]


def test_a_full_temporary_folder_does_no_harm(
    writer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, write = writer
    with small_disk(tmp_path / "disk", 8) as disk:
        fill(disk)
        monkeypatch.setenv("TMPDIR", str(disk))
        monkeypatch.setattr("tempfile.tempdir", None)
        write(tmp_path / name)
        assert list(disk.iterdir()) == [disk / "filler"]


def streamed(tiny_data: dict[str, Any]) -> list[torch.Tensor]:
    module = ActivationDataModule(**tiny_data, cache_stream=True)
    module.setup("fit")
    return [batch.residuals for batch in islice(module.train_dataloader(), 5)]


@pytest.mark.parametrize("kib", [4, 40, 200])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_cache_that_is_full_or_read_only_stops_no_run(
    kib: int,
    read_only: bool,
    tiny_data: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if read_only and kib > 4:
        pytest.skip("nothing is written, whatever the size")
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "room"))
    monkeypatch.setattr(cache, "_UNKEPT", set())
    expected = streamed(tiny_data)
    with small_disk(tmp_path / "disk", kib, read_only) as disk:
        monkeypatch.setenv("SAEREPGEO_CACHE", str(disk))
        with pytest.warns(UserWarning, match="are not kept in") as said:
            got = streamed(tiny_data)
        assert len(said) == 1
        assert str(disk) in str(said[0].message)
        assert all(map(torch.equal, got, expected))
        assert all(map(cli_cache.kind_of, disk.rglob("*.safetensors")))
        assert not list(disk.rglob("*.partial"))


def test_a_cache_that_became_read_only_is_read(
    tiny_data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "room"))
    expected = streamed(tiny_data)
    with small_disk(tmp_path / "disk", 8192) as disk:
        shutil.copytree(tmp_path / "room", disk, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        monkeypatch.setenv("SAEREPGEO_CACHE", str(disk))
        monkeypatch.setattr("saerepgeo.data.lm_module.FrozenLM", None)  # loading it would fail
        assert all(map(torch.equal, streamed(tiny_data), expected))


KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
from safetensors.torch import load_file
from faults.test_disks import new_sae, save_sae, save_tensors, write_json, torch

folder, sae = Path(sys.argv[1]), new_sae("topk", d_in=8, d_sae=512, k=4)

def write():
    for number in range(1, 10**9):
        save_tensors(folder / "x.safetensors", {"x": torch.full((300_000,), float(number))})
        write_json(folder / "x.json", [number] * 20_000)
        save_sae(sae, folder / "sae", {"number": number}, figures={"number": number})

def check():
    for path in folder.glob("x.safetensors"):
        assert len(set(load_file(path)["x"].tolist())) == 1
    for path in folder.glob("x.json"):
        assert len(set(json.loads(path.read_text()))) == 1
    if (folder / "sae").exists():
        number = json.loads((folder / "sae/figures.json").read_text())["number"]
        for form in (folder / "sae", folder / "sae/training"):
            assert json.loads((form / "cfg.json").read_text())["metadata"]["number"] == number
            assert load_file(form / "sae_weights.safetensors")["W_dec"].equal(sae.sae.W_dec.cpu())

generator = random.Random(0)
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        write()
    time.sleep(generator.uniform(0.0, 0.3))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    check()
print("all whole, unfinished:", len(list(folder.glob(".*"))))
"""


def test_a_writer_killed_at_any_moment_leaves_whole_files(tmp_path: Path) -> None:
    """Five times `SAEREPGEO_KILLED_RUNS`; what is left goes once it is old enough."""
    here = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), str(N_KILLS)],
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, (here, here.parent)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "all whole" in done.stdout
    unfinished = list(tmp_path.glob(".*.partial"))
    for path in unfinished:
        os.utime(path, (1, 1))
    export(tmp_path / "sae")
    assert not list(tmp_path.glob(".*"))
    assert load_sae(path=tmp_path / "sae").d_sae == 96


def test_a_folder_killed_between_its_two_renames_comes_back(tmp_path: Path) -> None:
    export(tmp_path / "sae")
    (tmp_path / "sae" / "README.md").write_text("how it was made")
    dead = subprocess.Popen(["true"])
    dead.wait()
    with replacing_folder(tmp_path / "other") as scratch:
        name = scratch.name.replace("other", "sae").replace(f"+{os.getpid()}.", f"+{dead.pid}.")
    (tmp_path / "sae").rename(tmp_path / name.replace(".partial", ".old"))
    export(tmp_path / "sae")
    assert (tmp_path / "sae" / "README.md").read_text() == "how it was made"
    assert not list(tmp_path.glob(".*"))


FIRST = """
import sys, time
from pathlib import Path
from saerepgeo.files import replacing_folder
for number in range(30):
    path = Path(sys.argv[1]) / str(number)
    while time.time() < float(sys.argv[2]) + 0.05 * number:
        pass
    with replacing_folder(path, first_stays=True) as scratch:
        (scratch / "config.json").write_text("whole")
    for _ in range(20):
        assert (path / "config.json").read_text() == "whole"
"""


def test_of_two_processes_that_make_a_folder_at_once_the_first_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIRST, str(tmp_path), str(time.time() + 1)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0
    assert len(list(tmp_path.iterdir())) == 30


def fit(config: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    import saerepgeo.__main__ as entry

    monkeypatch.setattr(sys, "argv", ["saerepgeo", "fit", "--config", str(config), *options])
    state = torch.random.get_rng_state()
    try:
        return entry.run()
    finally:
        torch.random.set_rng_state(state)


def test_a_fit_without_room_for_cache_and_temporary_files_is_the_same(
    tiny_data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training_process import write_config

    export(tmp_path / "start")
    weights = {}
    with small_disk(tmp_path / "disk", 8) as disk:
        fill(disk)
        for name, cache_folder in (("room", tmp_path / "cache"), ("no room", disk)):
            (tmp_path / name).mkdir()
            monkeypatch.setenv("SAEREPGEO_CACHE", str(cache_folder))
            if name == "no room":
                monkeypatch.setattr(cache, "_UNKEPT", set())
                monkeypatch.setenv("TMPDIR", str(disk))
                monkeypatch.setattr("tempfile.tempdir", None)
            config = write_config(tmp_path / name, tiny_data, tmp_path / "start", 3)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                assert fit(config, monkeypatch) == 0
            unkept = [w for w in said if "are not kept in" in str(w.message)]
            assert len(unkept) == (name == "no room")
            saved = tmp_path / name / "sae" / "training" / "sae_weights.safetensors"
            weights[name] = saved.read_bytes()
        assert list(content(disk)) == ["filler"]
    assert weights["room"] == weights["no room"]


def test_a_fit_whose_export_does_not_fit_says_so_and_is_finished_by_another(
    tiny_data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    import yaml
    from training_process import write_config

    export(tmp_path / "start")
    config = write_config(tmp_path, tiny_data, tmp_path / "start", 3)
    with small_disk(tmp_path / "disk", 16) as disk:
        tree = yaml.safe_load(config.read_text())
        tree["trainer"]["callbacks"][2]["init_args"]["dirpath"] = str(disk / "sae")
        config.write_text(yaml.safe_dump(tree))
        assert fit(config, monkeypatch) == 2
        said = capfd.readouterr().err.splitlines()
        lines = [line for line in said if not line.startswith("INFO: ")]
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], lines
        assert f"error: `{disk / 'sae'}` could not be written: No space left" in lines[-1]
        assert "bytes are needed)" in lines[-1]
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Checkpoint directory .* is not empty")
            assert fit(config, monkeypatch, "--ckpt_path", "last") == 0
        assert load_sae(path=disk / "sae").d_sae == 96
        assert (disk / "sae" / "figures.json").is_file()


@pytest.mark.parametrize("kib", [1, pytest.param(6, marks=pytest.mark.thorough)])
def test_a_logger_that_finds_no_room_ends_the_run_in_one_line(
    tiny_data: dict[str, Any], tmp_path: Path, kib: int
) -> None:
    import yaml
    from training_process import run_fit, write_config

    export(tmp_path / "start")
    config = write_config(tmp_path, tiny_data, tmp_path / "start", 6)
    with small_disk(tmp_path / "disk", 64) as disk:
        (disk / "filler").write_bytes(bytes(1024 * (56 - 2 * kib)))
        tree = yaml.safe_load(config.read_text())
        logger = "lightning.pytorch.loggers.TensorBoardLogger"
        tree["trainer"] |= {"log_every_n_steps": 1}
        tree["trainer"]["logger"] = {"class_path": logger, "init_args": {"save_dir": str(disk)}}
        config.write_text(yaml.safe_dump(tree))
        done = run_fit(config)
        assert "Traceback" not in done.stderr, done.stderr
        refusals = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == (2 if refusals else 0), done.stderr
        assert (tmp_path / "sae").exists() != bool(refusals)
        assert bool(refusals) == (kib < 6)
        for refusal in refusals:
            assert re.match(rf"error: `{disk}.*` could not be written: No space left", refusal)
        assert not any(path.stat().st_size == 0 for path in disk.rglob("*.yaml"))
