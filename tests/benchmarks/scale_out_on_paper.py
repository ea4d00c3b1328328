"""Memory, traffic and time of a training step on eight H200, by formulas; nothing is run.

python tests/benchmarks/scale_out_on_paper.py [--devices 8] [--points-per-device 4096]

What processes send is the same code that tests/test_traffic.py holds to what the profiler counts.
"""

import argparse
from typing import NamedTuple

HBM = 141e9  # bytes: NVIDIA's data sheet of the H200 SXM, as are the next three
BANDWIDTH = 4.8e12  # bytes/s
FLOPS = 989e12  # bf16, dense
LINK = 450e9  # bytes/s out of a device: NVLink's 900 GB/s count both directions
NETWORK = 50e9  # bytes/s out of a device, over a 400 Gbit/s adapter of its own
EFFICIENCY = 0.5  # share of FLOPS that large products reach: an assumption
HOST = 4e-3  # s a step that launching kernels and Lightning's loop take at least: an assumption
STEP_BYTES = 60  # read and written a parameter a step: see `weights_seconds`
ITEMS = 72
TOKENS = 1e9


class Model(NamedTuple):
    """A language model up to the hook; sizes from its config.json and model card."""

    name: str
    d_model: int
    layers: int
    """Up to and including the hook's."""
    per_layer: float
    """Parameters of a layer."""
    total: float
    """All parameters, which a device holds in bf16."""


SMOLLM2 = Model("SmolLM2-135M", 576, 11, 3.54e6, 134.5e6)
GEMMA2 = Model("Gemma-2-2B", 2304, 13, 77.9e6, 2.61e9)
CASES = ((SMOLLM2, 4608, 32), (GEMMA2, 65536, 64), (GEMMA2, 2**20, 64))


def n_parameters(d_model: int, d_sae: int) -> int:
    """Return 2·d_model·d_sae + d_sae + d_model."""
    return 2 * d_model * d_sae + d_sae + d_model


def moments_bytes(d_sae: int, n_items: int) -> int:
    """Return the class moments' counts, sums and square sums, and the sums' gradient (aedp)."""
    return 8 * n_items + 4 * n_items * (d_sae + 1) + 4 * n_items * d_sae


def data_parallel_payload(d_model: int, d_sae: int, n_items: int) -> int:
    """Return what is all-reduced in a step: float32 gradients, moments, counts of active points.

    Whatever the number of points.
    """
    return 4 * n_parameters(d_model, d_sae) + moments_bytes(d_sae, n_items) + 8 * d_sae


def point_payload(n_points: int, d_model: int, k: int) -> dict[str, int]:
    """Return what a split step moves for all `n_points`, whatever d_sae.

    Residuals and gradients of reconstructions are gathered, partial reconstructions are summed and
    scattered; of k candidates (score, latent, kept or not, value, the value's gradient).
    """
    return {
        "all_gather": 2 * n_points * d_model * 4,
        "reduce_scatter": n_points * d_model * 4,
        "all_to_all": n_points * k * (4 + 4 + 1 + 4 + 4),
    }


def sent_data_parallel(model: Model, d_sae: int, devices: int) -> float:
    """Return what each device sends in a step; a ring all-reduce sends 2·(R − 1)/R its payload."""
    ring = 2 * (devices - 1) / devices
    return ring * data_parallel_payload(model.d_model, d_sae, ITEMS)


def sent_split(model: Model, d_sae: int, k: int, devices: int, points: int) -> float:
    """Return what each device sends in a step; the rest of the devices hold (R − 1)/R of all."""
    share = (devices - 1) / devices
    shared = moments_bytes(d_sae, ITEMS) + 8 * d_sae
    return share * (sum(point_payload(points, model.d_model, k).values()) + 2 * shared)


def sent_sharded(model: Model, d_sae: int, devices: int) -> float:
    """Return what each device sends under FSDP2: weights gathered twice, gradients scattered."""
    return 3 * 4 * n_parameters(model.d_model, d_sae) * (devices - 1) / devices


def memory(model: Model, d_sae: int, parts: int, own: int, points: int) -> dict[str, float]:
    """Return bytes a device holds: `own` points of the stream, `points` that it encodes."""
    parameters = n_parameters(model.d_model, d_sae) / parts
    return {
        "weights, gradient, Adam": 16 * parameters,
        "buckets and temporaries": 8 * parameters,
        "scores": 2 * points * d_sae / parts,
        "points and their gradients": 4 * 4 * points * model.d_model,
        "windows": 2 * 8 * 4 * own * model.d_model,
        "language model": 2 * model.total,
    }


def weights_seconds(model: Model, d_sae: int, parts: int) -> float:
    """Return the time of all that passes over the weights once a step.

    Bytes a parameter: cast to bf16 and product 8, gradient zeroed and written 8, its norm 4, its
    part along the rows 6, Adam 28 (four read, three written), rows rescaled 6.
    """
    return STEP_BYTES * n_parameters(model.d_model, d_sae) / parts / BANDWIDTH


def compute_seconds(
    model: Model, d_sae: int, k: int, parts: int, own: int, points: int
) -> dict[str, float]:
    """Return the time of each part of a step on one device."""
    lm = 2 * own * model.layers * model.per_layer
    return {
        "LM": lm / FLOPS / EFFICIENCY,
        "encoder": 2 * points * model.d_model * d_sae / parts / FLOPS / EFFICIENCY,
        "top-k": 5 * 2 * points * d_sae / parts / BANDWIDTH,  # scores written, read four times
        "sparse": 4 * 4 * points * k / parts * model.d_model / BANDWIDTH,
        "weights": weights_seconds(model, d_sae, parts),
    }


def row(name: str, parts: dict[str, float], sent: float, held: float, points: int) -> str:
    """Return a row of the table: nothing overlaps, and no step is shorter than `HOST`."""
    seconds = max(sum(parts.values()) + sent / LINK, HOST)
    hours = TOKENS / points * seconds / 3600
    detail = " + ".join(f"{1e3 * value:.1f}" for value in parts.values())
    fits = "" if held < HBM else " (does not fit)"
    return (
        f"| {name} | {held / 1e9:.0f} GB{fits} | {sent / 1e9:.2f} GB | {detail} | "
        f"{1e3 * sent / LINK:.1f} | {1e3 * seconds:.0f} ms | {hours:.2f} h |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--points-per-device", type=int, default=4096)
    options = parser.parse_args()
    devices, own = options.devices, options.points_per_device
    points = devices * own
    print(
        "| LM, SAE, strategy | memory | sent a step | LM + encoder + top-k + sparse + weights, ms "
        "| sending, ms | step | 1B tokens |\n|---|---|---|---|---|---|---|"
    )
    for model, d_sae, k in CASES:
        name = f"{model.name}, {model.d_model}→{d_sae}"
        held = sum(memory(model, d_sae, 1, own, own).values())
        parts = compute_seconds(model, d_sae, k, 1, own, own)
        sent = sent_data_parallel(model, d_sae, devices)
        print(row(f"{name}, ddp", parts, sent, held, points))
        fixed = parts["weights"] + sent / LINK
        per_point = (sum(parts.values()) - parts["weights"]) / own
        print(f"    half the step is overhead at {fixed / per_point:,.0f} points a device")
        print(f"    between nodes: sending takes {sent / NETWORK * 1e3:,.0f} ms")
        held = sum(memory(model, d_sae, devices, own, points).values())
        parts = compute_seconds(model, d_sae, k, devices, own, points)
        sent = sent_split(model, d_sae, k, devices, points)
        print(row(f"{name}, split", parts, sent, held, points))
        print(f"    FSDP2 would send {sent_sharded(model, d_sae, devices) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
