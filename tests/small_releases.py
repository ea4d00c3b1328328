"""Random-weight models and SAEs in the very file layouts of the releases that configs/models names.

The architectures, layer counts, repository names, file names and configuration keys are those of
the releases; only the widths are small.
"""

import json
from pathlib import Path
from typing import Any

import torch

D_IN, D_SAE, K = 32, 64, 8
GPT2 = "openai-community/gpt2"
PYTHIA = "EleutherAI/pythia-70m-deduped"
GEMMA = "google/gemma-2-2b"
GPT2_SAE = "jbloom/GPT2-Small-OAI-v5-32k-resid-post-SAEs"
PYTHIA_SAE = "ctigges/pythia-70m-deduped__res-sm_processed"
GEMMA_SAE = "canrager/saebench_gemma-2-2b_width-2pow16_date-1109"

RELEASES = {
    "gpt2-small": ("gpt2-small-resid-post-v5-32k", "blocks.11.hook_resid_post"),
    "pythia-70m": ("pythia-70m-deduped-res-sm", "blocks.5.hook_resid_post"),
    "gemma-2-2b": (
        "sae_bench_gemma-2-2b_topk_width-2pow16_date-1109",
        "blocks.19.hook_resid_post__trainer_0",
    ),
}
"""By overlay in configs/models: release and id in SAELens' registry."""

SENTENCES = [
    f"{item} is the {place} of the year, and {item} comes after the rain."
    for item in ("January", "February", "Monday", "Sunday", "fire", "water", "earth", "air")
    for place in ("first", "second", "third", "last")
]


def write_releases(root: Path) -> dict[str, Path]:
    """Write all six repositories; return each one's folder by its name."""
    makers = {
        GPT2: write_gpt2,
        PYTHIA: write_pythia,
        GEMMA: write_gemma,
        GPT2_SAE: write_gpt2_sae,
        PYTHIA_SAE: write_pythia_sae,
        GEMMA_SAE: write_gemma_sae,
    }
    folders = {name: root / name for name in makers}
    for name, make in makers.items():
        folders[name].mkdir(parents=True)
        make(folders[name])
    return folders


def write_gpt2(folder: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    end = write_tokenizer(folder, "GPT2Tokenizer", bos="<|endoftext|>", eos="<|endoftext|>")
    sizes = {"n_embd": D_IN, "n_layer": 12, "n_head": 4, "n_positions": 128}
    write_model(folder, GPT2LMHeadModel, GPT2Config(**sizes, **end))


def write_pythia(folder: Path) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    ends = {"bos": "<|endoftext|>", "eos": "<|endoftext|>", "pad": "<|padding|>"}
    end = write_tokenizer(folder, "GPTNeoXTokenizer", **ends)
    sizes = {"hidden_size": D_IN, "intermediate_size": 64, "num_hidden_layers": 6}
    heads = {"num_attention_heads": 4, "max_position_embeddings": 128}
    write_model(folder, GPTNeoXForCausalLM, GPTNeoXConfig(**sizes, **heads, **end))


def write_gemma(folder: Path) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    end = write_tokenizer(folder, "GemmaTokenizer", bos="<bos>", eos="<eos>", pad="<pad>")
    sizes = {"hidden_size": D_IN, "intermediate_size": 64, "num_hidden_layers": 26}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    limits = {"max_position_embeddings": 128, "sliding_window": 64}
    write_model(folder, Gemma2ForCausalLM, Gemma2Config(**sizes, **heads, **limits, **end))


def write_model(folder: Path, model_class: Any, config: Any) -> None:
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)


def write_tokenizer(folder: Path, kind: str, **specials: str) -> dict[str, int]:
    """Write a tokenizer of that class; return vocab_size and the ids of its special tokens."""
    from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    names = sorted(set(specials.values()))
    if kind == "GemmaTokenizer":
        backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
        backend.normalizer = normalizers.Replace(" ", "▁")
        alphabet = [chr(code) for code in range(33, 127)]
        names = [*names, "<unk>", "<mask>"]
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(SENTENCES, trainer)
    else:
        bytes_ = ByteLevelBPETokenizer()
        bytes_.train_from_iterator(
            SENTENCES, vocab_size=400, special_tokens=names, show_progress=False
        )
        backend = bytes_._tokenizer
    tokens = {f"{role}_token": name for role, name in specials.items()}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **tokens)
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": kind}))
    ids = {f"{role}_token_id": backend.token_to_id(name) for role, name in specials.items()}
    return {"vocab_size": len(tokenizer)} | ids


def sae_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(D_SAE, D_IN, generator=generator)
    rows /= rows.norm(dim=1, keepdim=True)
    return {
        "W_enc": rows.T.contiguous(),
        "W_dec": rows,
        "b_enc": 0.01 * torch.randn(D_SAE, generator=generator),
        "b_dec": 0.01 * torch.randn(D_IN, generator=generator),
    }


def write_saelens(folder: Path, weights: dict[str, torch.Tensor], **changes: Any) -> None:
    """Write an SAE as SAELens before version 6 did."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(weights, folder / "sae_weights.safetensors")
    config = {
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "torch.float32",
        "device": "cuda",
        "hook_point_head_index": None,
        "activation_fn_kwargs": {},
        "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False,
        "sae_lens_training_version": None,
        "dataset_trust_remote_code": True,
    }
    (folder / "cfg.json").write_text(json.dumps(config | changes))


def write_gpt2_sae(folder: Path) -> None:
    """OpenAI's TopK SAE on layer-normed residuals, 64 tokens a context, no BOS."""
    from safetensors.torch import save_file

    inner = folder / "v5_32k_layer_11.pt"
    write_saelens(
        inner,
        sae_weights(),
        model_name="gpt2-small",
        hook_point="blocks.11.hook_resid_post",
        activation_fn_str="topk",
        activation_fn_kwargs={"k": K},
        normalize_activations="layer_norm",
        prepend_bos=False,
        context_size=64,
        dataset_path="Skylion007/openwebtext",
    )
    save_file({"sparsity": torch.zeros(D_SAE)}, inner / "sparsity.safetensors")


def write_pythia_sae(folder: Path) -> None:
    """A standard SAE without a sparsity file."""
    write_saelens(
        folder / "5-res-sm",
        sae_weights(1),
        model_name="EleutherAI/pythia-70m-deduped",
        hook_point="blocks.5.hook_resid_post",
        activation_fn_str="relu",
        normalize_activations="none",
        prepend_bos=True,
        context_size=128,
        dataset_path="EleutherAI/the_pile_deduplicated",
    )


def write_gemma_sae(folder: Path) -> None:
    """A TopK SAE in the format of dictionary_learning."""
    name = "gemma-2-2b_topk_width-2pow16_date-1109/resid_post_layer_19/trainer_0"
    inner = folder / name
    inner.mkdir(parents=True)
    weights = sae_weights(2)
    stored = {
        "encoder.weight": weights["W_enc"].T.contiguous(),
        "encoder.bias": weights["b_enc"],
        "decoder.weight": weights["W_dec"].T.contiguous(),
        "b_dec": weights["b_dec"],
        "k": torch.tensor(K),
        "threshold": torch.tensor(0.5),
    }
    torch.save(stored, inner / "ae.pt")
    trainer = {
        "dict_class": "AutoEncoderTopK",
        "trainer_class": "TrainerTopK",
        "activation_dim": D_IN,
        "dict_size": D_SAE,
        "k": K,
        "layer": 19,
        "lm_name": "google/gemma-2-2b",
        "submodule_name": "resid_post_layer_19",
    }
    config = {"trainer": trainer, "buffer": {"d_submodule": D_IN, "ctx_len": 128}}
    (inner / "config.json").write_text(json.dumps(config))
