"""SAEBench's `core` evaluation out of an SAE's rows on held-out text."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from saerepgeo.report.saebench.output import EvaluatedSAE, Evaluation, finite
from saerepgeo.report.saebench.schema import Category, Field, Kind

Row = dict[str, Any]


class Source(NamedTuple):
    """Where a field's value is from: the row of a metric, or what it lacks to 1."""

    field: Field
    metric: str
    is_complement: bool = False


def _own(name: str, title: str, description: str, metric: str = "", shown: bool = False) -> Source:
    return Source(Field(name, title, description, is_shown=shown), metric or name)


def _rest(name: str, title: str, description: str, metric: str, shown: bool = False) -> Source:
    return Source(Field(name, title, description, is_shown=shown), metric, is_complement=True)


ABLATION = "with zeros in place of the residuals, in nats a token"
SOURCES: dict[str, tuple[str, str, list[Source]]] = {
    "model_behavior_preservation": (
        "Model Behavior Preservation",
        "What is left of the model's predictions with the SAE in its place.",
        [
            _own(
                "kl_div_score",
                "KL Divergence Score",
                "Share of the divergence under zero ablation that the SAE avoids.",
                "kl_recovered",
                True,
            ),
            _own("kl_div_with_ablation", "KL Divergence with Ablation", ABLATION, "kl_zero"),
            _own("kl_div_with_sae", "KL Divergence with SAE", "In nats a token.", "kl_sae"),
        ],
    ),
    "model_performance_preservation": (
        "Model Performance Preservation",
        "What is left of the model's next-token loss with the SAE in its place.",
        [
            _own(
                "ce_loss_score",
                "Cross Entropy Loss Score",
                "Share of the loss between zero ablation and the clean model that is recovered.",
                "ce_recovered",
                True,
            ),
            _own("ce_loss_with_ablation", "CE Loss with Ablation", ABLATION, "ce_zero"),
            _own("ce_loss_with_sae", "CE Loss with SAE", "In nats a token.", "ce_sae"),
            _own("ce_loss_without_sae", "CE Loss without SAE", "In nats a token.", "ce_clean"),
        ],
    ),
    "reconstruction_quality": (
        "Reconstruction Quality",
        "How near reconstructions come to the residuals.",
        [
            _rest(
                "explained_variance",
                "Explained Variance",
                "1 − Σ‖x̂ − x‖²/Σ‖x − μ‖², μ the mean of all points: 1 − fvu.",
                "fvu",
                True,
            ),
            _own(
                "explained_variance_legacy",
                "Explained Variance (Legacy)",
                "1 − the mean of ‖x̂ − x‖²/‖x − μ‖², which SAEBench first published.",
            ),
            _own("mse", "Mean Squared Error", "Mean over points of ‖x̂ − x‖²."),
            _own("cossim", "Cosine Similarity", "Mean over points.", "cosine"),
        ],
    ),
    "shrinkage": (
        "Shrinkage",
        "Whether reconstructions have the length of the residuals.",
        [
            _own("l2_norm_in", "Input L2 Norm", "Mean over points of ‖x‖."),
            _own("l2_norm_out", "Output L2 Norm", "Mean over points of ‖x̂‖."),
            _own("l2_ratio", "L2 Ratio", "Mean over points of ‖x̂‖/‖x‖.", shown=True),
            _own(
                "relative_reconstruction_bias",
                "Relative Reconstruction Bias",
                "E‖x̂‖²/E⟨x, x̂⟩; below 1: shrinkage.",
            ),
        ],
    ),
    "sparsity": (
        "Sparsity",
        "How many latents a point has, and how much of them.",
        [
            _own("l0", "L0", "Mean number of latents that are not 0, a point.", shown=True),
            _own("l1", "L1", "Mean sum of |latent|·‖decoder row‖, a point."),
        ],
    ),
    "misc_metrics": (
        "Miscellaneous Metrics",
        "How often latents fire, and how alike their directions are.",
        [
            _own("freq_over_1_percent", "Frequent (1%)", "Share of latents active at over 1 %."),
            _own("freq_over_10_percent", "Frequent (10%)", "Share of latents active at over 10 %."),
            _own(
                "normalized_freq_over_1_percent",
                "Activations of Frequent Latents (1%)",
                "Share of all activations that are of latents active at over 1 % of the points.",
            ),
            _own(
                "normalized_freq_over_10_percent",
                "Activations of Frequent Latents (10%)",
                "Share of all activations that are of latents active at over 10 % of the points.",
            ),
            _own(
                "average_max_encoder_cosine_sim",
                "Nearest Encoder Direction",
                "Mean over latents of the greatest cosine with another's encoder direction.",
            ),
            _own(
                "average_max_decoder_cosine_sim",
                "Nearest Decoder Direction",
                "Mean over latents of the greatest cosine with another's decoder direction.",
            ),
            _rest("frac_alive", "Alive", "Share of latents active at least once.", "dead_fraction"),
        ],
    ),
}
TOKENS = Category(
    "token_stats",
    "Token Statistics",
    "On how much text.",
    (
        Field(
            "total_tokens_eval_reconstruction",
            "Tokens (Losses)",
            "Tokens of the contexts on which the language model's losses were taken.",
            "integer",
        ),
        Field(
            "total_tokens_eval_sparsity_variance",
            "Tokens (Points)",
            "Points of all other figures: real text, without BOS and attention sinks.",
            "integer",
        ),
    ),
)
_FLAGS = (
    *("kl", "ce_loss", "l2_norms", "sparsity_metrics", "variance_metrics"),
    *("featurewise_density_statistics", "featurewise_weight_based_metrics"),
)
CONFIG = (
    Field("model_name", "Model", "The language model.", "string"),
    Field("llm_dtype", "Dtype", "What its matrices are multiplied in, as set.", "string"),
    Field("batch_size_prompts", "Batch", "Contexts of a batch, as batches are counted.", "integer"),
    Field("n_eval_reconstruction_batches", "Batches (Losses)", "Contexts of losses.", "integer"),
    Field("n_eval_sparsity_variance_batches", "Batches (Points)", "Other contexts.", "integer"),
    Field("dataset", "Dataset", "The text that the held-out contexts are of.", "string"),
    Field("context_size", "Context", "Tokens of a context, BOS included.", "integer"),
    *(Field(f"compute_{n}", n, f"Whether {n} is measured.", "boolean") for n in _FLAGS),
    Field(
        "exclude_special_tokens_from_reconstruction",
        "Special tokens kept",
        "Whether BOS and attention sinks keep their residuals.",
        "boolean",
    ),
    Field("verbose", "Verbose", "Of SAEBench's own runs.", "boolean"),
)
CORE = Kind(
    "core",
    "Core",
    "Reconstruction, sparsity and what the language model loses, measured by saerepgeo.",
    CONFIG,
    (
        *(
            Category(name, title, description, tuple(source.field for source in sources))
            for name, (title, description, sources) in SOURCES.items()
        ),
        TOKENS,
    ),
    (),
)
NOTES = {
    "reconstruction_quality.explained_variance": "SAEBench 0.6 takes the variance about zero and "
    "not about the mean: its value is too high.",
    "reconstruction_quality.mse": "SAEBench 0.6 divides by the number of tokens once more.",
    "model_behavior_preservation": "At real text only, zeros at the positions of the SAE alone; "
    "SAEBench ablates every position.",
}


def core_evaluation(
    sae: EvaluatedSAE, rows: Sequence[Row], config: Mapping[str, Any]
) -> Evaluation:
    """Return the evaluation of an SAE; `config` as in `CONFIG`, but for flags and batches."""
    own = {
        row["metric"]: row for row in rows if row["sae"] == sae.name and row["space"] == "recons"
    }
    metrics: dict[str, dict[str, float | None]] = {}
    reasons: dict[str, str] = {}
    for category, (_, _, sources) in SOURCES.items():
        metrics[category] = {}
        for (name, *_), metric, is_complement in sources:
            row = own.get(metric)
            value = finite(row["value"]) if row else None
            if value is None:
                reason = row["reason"] or "infinite" if row else "not measured"
                reasons[f"{category}.{name}"] = reason
            metrics[category][name] = 1 - value if value is not None and is_complement else value
    n_contexts = own["ce_sae"]["n"] if "ce_sae" in own else 0
    n_points = own["fvu"]["n"] if "fvu" in own else 0
    counts = n_contexts * config["context_size"], n_points
    metrics["token_stats"] = {
        field.name: count for field, count in zip(TOKENS.fields, counts, strict=True)
    }
    flags = {f"compute_{name}": True for name in _FLAGS}
    flags |= {"compute_kl": bool(n_contexts), "compute_ce_loss": bool(n_contexts)}
    flags |= {"exclude_special_tokens_from_reconstruction": True, "verbose": False}
    batches = {"batch_size_prompts": 1, "n_eval_reconstruction_batches": n_contexts}
    told = dict(config) | batches | flags
    ordered = {field.name: told[field.name] for field in CONFIG}
    return Evaluation(sae, ordered, metrics, [], reasons, NOTES)
