"""From a config and weights to a trainable `SAEModel`; from nothing but sizes to a new one."""

import math
import re
import warnings
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from saerepgeo.sae.inference_only import INFERENCE_ONLY
from saerepgeo.sae.io.sae_lens import sae_lens
from saerepgeo.sae.model import SAEModel

_TOPK_FAMILY = ("topk", "abstopk", "batchtopk", "matryoshka_batchtopk")
TRAINABLE = ("standard", *_TOPK_FAMILY, "jumprelu", "gated", "matching_pursuit")


def sae_lens_config(cfg: dict[str, Any], training: dict[str, Any] | None = None) -> Any:
    """Return SAELens' config in the form that this package gives an SAE of the architecture.

    Raises ValueError on an unknown architecture, and on `training` settings that it has not got.
    """
    architecture = cfg.get("architecture", "standard")
    if not isinstance(architecture, str) or architecture not in INFERENCE_ONLY:
        return training_config(cfg, training)
    if training:
        raise ValueError(
            f"`training` must be left out: a {architecture} SAE can be analysed but not trained "
            f"here, got {', '.join(sorted(training))}"
        )
    config_class = _classes(architecture)[1]
    _check_types(cfg, config_class)
    return config_class.from_dict(cfg)


def _classes(architecture: str) -> tuple[Any, Any]:
    """Return SAELens' classes of an SAE and of its config."""
    sae_lens()
    from sae_lens.registry import get_sae_class, get_sae_training_class

    find = get_sae_class if architecture in INFERENCE_ONLY else get_sae_training_class
    return find(architecture)


def training_config(cfg: dict[str, Any], training: dict[str, Any] | None = None) -> Any:
    """Return SAELens' training config for the config of an SAE in training or inference form.

    What an inference config lacks is taken from `training`, else from the training record in its
    metadata, else from SAELens' defaults: l1 or l0 coefficient 1, auxiliary (dead latents)
    coefficient 1, JumpReLU bandwidth 0.05, no warm-up. But `rescale_acts_by_decoder_norm` is False
    where it is absent: files that do without it mean that, SAELens' training configs do not.

    Raises ValueError on an architecture that cannot be trained and on unknown `training` keys.
    """
    architecture = cfg.get("architecture", "standard")
    if not isinstance(architecture, str) or architecture not in TRAINABLE:
        raise ValueError(
            f"`architecture` must be one of {', '.join(TRAINABLE)} (or, to be analysed and not "
            f"trained, {', '.join(INFERENCE_ONLY)}), got {architecture!r}"
        )
    config_class = _classes(architecture)[1]
    known = {f.name for f in fields(config_class)} - {"metadata", "d_in", "d_sae"}
    if unknown := sorted(set(training or {}) - known):
        raise ValueError(
            f"`training` must hold settings of {config_class.__name__} "
            f"({', '.join(sorted(known))}), got {', '.join(unknown)}"
        )
    metadata = cfg.get("metadata") or {}
    recorded = {}
    if metadata.get("training_architecture") == architecture:
        details = metadata.get("training_architecture_details") or {}
        recorded = {name: details[name] for name in known & set(details)}
    if architecture == "matching_pursuit":
        recorded["decoder_init_norm"] = 1.0  # the only one it takes; the default is another
    merged = {"rescale_acts_by_decoder_norm": False} | recorded | cfg | (training or {})
    _check_types(merged, config_class)
    return config_class.from_dict({**merged, "metadata": metadata, "architecture": architecture})


def _check_k(k: Any, d_sae: int) -> None:
    if not isinstance(k, int | float) or not 1 <= k <= d_sae:
        raise ValueError(f"`k` must lie within 1..d_sae = {d_sae}, got {k}")


def _check_types(cfg: dict[str, Any], config_class: Any) -> None:
    """Check settings against the types of SAELens' config, which takes what comes."""
    hints = get_type_hints(config_class)
    for field in fields(config_class):
        if field.name in cfg and not _fits(hints[field.name], cfg[field.name]):
            kind = re.sub(r"typing\.|<class '|'>", "", str(hints[field.name]))
            value = cfg[field.name]
            raise ValueError(f"an SAE's `{field.name}` must be {kind}, got {value!r:.60}")


def _fits(hint: Any, value: Any) -> bool:
    """Return whether a JSON value is of a type; of types that JSON has not, everything is."""
    kind, args = get_origin(hint), get_args(hint)
    if kind is Literal:  # releases hold other values than the types name: SAELens checks them
        return type(value) is type(args[0])
    if kind in (Union, UnionType):
        return any(_fits(arg, value) for arg in args)
    if kind is list:
        return isinstance(value, list) and all(_fits(args[0], entry) for entry in value)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint if hint in (int, bool, str, NoneType) else True


def assemble(
    cfg: dict[str, Any],
    weights: dict[str, Tensor],
    training: dict[str, Any] | None = None,
    input_scale: float | None = None,
    device: str = "cpu",
) -> SAEModel:
    """Return the model of a SAELens config and its weights, upcast to float32.

    Raises ValueError where a tensor is missing, superfluous or of the wrong shape, and where an
    `input_scale` is needed and not given.
    """
    config = sae_lens_config(cfg | {"dtype": "float32", "device": "meta"}, training)
    if config.architecture() in _TOPK_FAMILY:
        _check_k(config.k, config.d_sae)
    factor, sae = _required_scale(cfg, input_scale), _quiet_sae(config)
    kind = INFERENCE_ONLY.get(config.architecture(), SAEModel)
    weights = {n: t if n == "topk_threshold" else t.float() for n, t in weights.items()}
    sae.process_state_dict_for_loading(weights)
    if "topk_threshold" in sae.state_dict():
        weights.setdefault("topk_threshold", torch.zeros((), dtype=torch.float64))
    _check_shapes(weights, sae)
    if kind is SAEModel and "threshold" in weights:
        # inference takes relu first: below zero it acts as zero
        weights["threshold"] = weights["threshold"].clamp(min=0.0)
    placed = {name: tensor.to(device).contiguous() for name, tensor in weights.items()}
    sae.load_state_dict(placed, assign=True)
    return kind(sae, factor)


def check_new(
    architecture: str,
    d_in: int,
    d_sae: int,
    settings: dict[str, Any],
    metadata: dict[str, Any] | None = None,
    device: str = "cpu",
) -> Any:
    """Return SAELens' training config of a new SAE; raises as `new_sae` does."""
    settings = dict(settings)
    for name in ("seed", "input_scale", "device"):  # of the model, not of its config
        settings.pop(name, None)
    mode, k = settings.pop("normalize_activations", "none"), settings.get("k")
    if architecture in _TOPK_FAMILY:
        _check_k(k, d_sae)
    elif architecture in TRAINABLE and k is not None:
        raise ValueError(f"`k` must be left out for architecture {architecture!r}, got {k}")
    cfg = {"architecture": architecture, "d_in": d_in, "d_sae": d_sae, "metadata": metadata or {}}
    cfg |= {"dtype": "float32", "device": device, "normalize_activations": mode}
    return training_config(cfg, settings)


def new_sae(
    architecture: str = "topk",
    *,
    d_in: int,
    d_sae: int,
    k: int | float | None = None,
    seed: int = 0,
    normalize_activations: str = "none",
    input_scale: float = 1.0,
    metadata: dict[str, Any] | None = None,
    device: str = "cpu",
    **training: Any,
) -> SAEModel:
    """Return an untrained SAE: decoder rows random on the unit sphere, encoder their transpose.

    Biases are zero (see `initialize_bias_`). `input_scale` is the constant f of
    normalize_activations="expected_average_only_in": x·f with mean squared norm d_in, i.e.
    f = √(d_in / E‖x‖²). `training` holds further settings, e.g. `l1_coefficient` (see
    `training_config`).

    Raises ValueError on an unknown architecture or setting, and on a `k` outside 1..d_sae.

    >>> model = new_sae("topk", d_in=8, d_sae=32, k=4)
    >>> model.encode(torch.zeros(2, 8)).latents.values.shape
    torch.Size([2, 4])
    """
    settings = (
        training
        | ({} if k is None else {"k": k})
        | {"normalize_activations": normalize_activations}
    )
    sae = _quiet_sae(check_new(architecture, d_in, d_sae, settings, metadata, device))
    # on the CPU by name, for Lightning has another device be the default where modules are made
    options: Any = {"generator": torch.Generator().manual_seed(seed), "device": "cpu"}
    rows = torch.randn(d_sae, d_in, **options)
    rows /= rows.norm(dim=1, keepdim=True)
    with torch.no_grad():
        sae.W_dec.copy_(rows)
        sae.W_enc.copy_(rows.t())
    return SAEModel(sae, input_scale)


def _quiet_sae(config: Any) -> Any:
    """Build the SAE of a config; the model processing its metadata names is honoured by `lm`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from_pre")
        try:
            return _classes(config.architecture())[0](config)
        except (AssertionError, TypeError, LookupError, RuntimeError) as error:
            raise ValueError(
                f"SAELens cannot make a {config.architecture()} SAE of its config: {error!r:.200}"
            ) from error


def _required_scale(cfg: dict[str, Any], input_scale: float | None) -> float:
    mode = cfg.get("normalize_activations", "none")
    if mode == "covariance_whitening":
        raise ValueError(
            "`normalize_activations` is covariance_whitening and its matrices are not folded into "
            "the weights; fold them with SAELens' fold_activation_whitening and save again"
        )
    if mode == "expected_average_only_in" and input_scale is None:
        raise ValueError(
            "`input_scale` must be given: this SAE was trained on residuals scaled by a constant "
            "(expected_average_only_in) that its files do not hold; pass √(d_in)/E‖x‖ of its data"
        )
    return 1.0 if input_scale is None else float(input_scale)


def _check_shapes(weights: dict[str, Tensor], sae: Any) -> None:
    expected = sae.state_dict()
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or extra:
        raise ValueError(
            f"weights must be those of architecture {sae.cfg.architecture()!r} "
            f"({', '.join(sorted(expected))}), missing: {', '.join(missing) or 'none'}, "
            f"unknown: {', '.join(extra) or 'none'}; does cfg.json belong to this file?"
        )
    for name, tensor in expected.items():
        shape, found = tuple(tensor.shape), tuple(weights[name].shape)
        if found != shape:
            raise ValueError(
                f"`{name}` must have shape {shape} (d_in and d_sae of cfg.json), got {found}; does "
                "cfg.json belong to this file?"
            )
