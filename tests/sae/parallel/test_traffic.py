"""What two real processes send each other in a step: against formulas, and what it grows with."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.scale_out_on_paper import data_parallel_payload, moments_bytes, point_payload

pytestmark = pytest.mark.thorough
D_MODEL, K, N_ITEMS = 32, 4, 12 + 7
Traffic = dict[str, dict[str, float]]


@pytest.fixture(scope="module")
def traffic(tmp_path_factory: pytest.TempPathFactory, tiny_lm: Path, text_file: Path) -> Traffic:
    """Payload of a step by collective: data parallel and split, by batch size and d_sae."""
    data = {
        "lm": str(tiny_lm),
        "hook_name": "blocks.1.hook_resid_post",
        "lm_dtype": "float32",
        "text": str(text_file),
        "concepts": ["months", "days"],
        "concept_fraction": 0.25,
        "context_size": 16,
        "window_steps": 2,
        "lm_batch_size": 4,
        "n_lanes": 4,
    }
    runs: dict[str, Any] = {}
    for batch_size, d_sae in ((64, 96), (128, 96), (64, 192)):
        for is_split in (False, True):
            name = f"{'split' if is_split else 'ddp'} {batch_size} {d_sae}"
            own = data | {"batch_size": batch_size}
            runs[name] = {"is_split": is_split, "d_sae": d_sae, "k": K, "data": own}
    folder = tmp_path_factory.mktemp("traffic")
    (folder / "runs.json").write_text(json.dumps(runs))
    run_pair(folder)
    found: Traffic = json.loads((folder / "traffic.json").read_text())
    return found


def run_pair(folder: Path) -> None:
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "traffic_process"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(port), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


@pytest.mark.parametrize("d_sae", [96, 192])
def test_data_parallel_reduces_gradients_moments_and_counts(traffic: Traffic, d_sae: int) -> None:
    found = traffic[f"ddp 64 {d_sae}"]
    assert found["all_reduce"] == data_parallel_payload(D_MODEL, d_sae, N_ITEMS)
    assert found.keys() <= {"all_reduce", "broadcast"}
    # buffers, from rank 0: silent points, distances between items, three scalars and a norm
    assert found["broadcast"] <= 8 * d_sae + 4 * N_ITEMS**2 + 64


def test_data_parallel_traffic_does_not_grow_with_the_batch(traffic: Traffic) -> None:
    assert traffic["ddp 128 96"] == traffic["ddp 64 96"]


@pytest.mark.parametrize("batch_size", [64, 128])
def test_split_moves_points_and_no_weights(traffic: Traffic, batch_size: int) -> None:
    found = traffic[f"split {batch_size} 96"]
    expected = point_payload(batch_size, D_MODEL, K)
    assert found["all_to_all"] == expected["all_to_all"]
    decoder_norms = 4 * 96 // 2  # of a gathered tensor each process's part counts
    assert found["all_gather"] == expected["all_gather"] // 2 + decoder_norms
    # gloo makes a reduce-scatter out of an all-reduce
    bias_gradients = 2 * D_MODEL * 4
    others = moments_bytes(96, N_ITEMS) + 8 * 96 + bias_gradients
    small = found["all_reduce"] - expected["reduce_scatter"] - others
    assert 0 <= small <= 64  # number of points, gradient norm


def test_split_traffic_of_points_does_not_grow_with_the_latents(traffic: Traffic) -> None:
    small, large = traffic["split 64 96"], traffic["split 64 192"]
    assert large["all_to_all"] == small["all_to_all"]
    assert large["all_gather"] - small["all_gather"] == 96 // 2 * 4  # decoder norms
    per_latent = 8 * N_ITEMS + 8  # class moments both ways, count of active points
    assert large["all_reduce"] - small["all_reduce"] == per_latent * 96
