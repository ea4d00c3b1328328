"""Random-weight releases of SAEs that are analysed and not trained, in their origins' layouts."""

from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

TEMPORAL = "canrager/temporalSAEs"
TRANSCODER = "mwhanna/qwen3-4b-transcoders"
INFERENCE_ONLY_RELEASES = {
    "temporal": ("temporal-sae-gemma-2-2b", "blocks.12.hook_resid_post"),
    "transcoder": ("mwhanna-qwen3-4b-transcoders", "layer_3"),
}
"""By architecture: release and id in SAELens' registry."""


def write_inference_only_releases(root: Path, d_in: int, d_sae: int) -> dict[str, Path]:
    """Write both repositories; return each one's folder by its name."""
    folders = {TEMPORAL: root / TEMPORAL, TRANSCODER: root / TRANSCODER}
    write_temporal(folders[TEMPORAL], d_in, d_sae)
    write_transcoder(folders[TRANSCODER], d_in, d_sae)
    return folders


def write_temporal(folder: Path, d_in: int, d_sae: int) -> None:
    generator = torch.Generator().manual_seed(0)
    heads, bottleneck = 2, 8
    inner = folder / "gemma-2-2B" / "layer_12" / "temporal"
    inner.mkdir(parents=True)
    narrow = d_sae // bottleneck
    shapes = {"D": (d_sae, d_in), "b": (d_in,)}
    for name, width in (("k_ctx", narrow), ("q_target", narrow), ("v_ctx", d_sae)):
        shapes |= {f"attn_layers.0.{name}.weight": (width, d_sae)}
        shapes |= {f"attn_layers.0.{name}.bias": (width,)}
    shapes |= {"attn_layers.0.c_proj.weight": (d_sae, d_sae), "attn_layers.0.c_proj.bias": (d_sae,)}
    weights = {name: 0.3 * torch.randn(size, generator=generator) for name, size in shapes.items()}
    save_file(weights, inner / "latest_ckpt.safetensors")
    sae = {
        "exp_factor": d_sae / d_in,
        "n_heads": heads,
        "n_attn_layers": 1,
        "bottleneck_factor": bottleneck,
        "sae_diff_type": "topk",
        "kval_topk": 8,
        "tied_weights": True,
        "scaling_factor": 0.00666666667,
    }
    config = {"llm": {"dimin": d_in}, "sae": sae, "data": {"dtype": "float32"}}
    (inner / "conf.yaml").write_text(yaml.safe_dump(config))


def write_transcoder(folder: Path, d_in: int, d_sae: int) -> None:
    generator = torch.Generator().manual_seed(1)
    folder.mkdir(parents=True)
    shapes = {"W_enc": (d_sae, d_in), "W_dec": (d_sae, d_in), "b_enc": (d_sae,), "b_dec": (d_in,)}
    weights = {name: 0.3 * torch.randn(size, generator=generator) for name, size in shapes.items()}
    save_file(weights, folder / "layer_3.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump({"model_name": "Qwen/Qwen3-4B"}))
    sizes = {"d_model": d_in, "d_feature": d_sae, "batch_size": 128}
    values = {name: {"value": value} for name, value in sizes.items()}
    (folder / "wandb-config.yaml").write_text(yaml.safe_dump(values))
