"""Language models: folders, GGUF files, hooks, and settings that do not fit the model."""

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from faults.faults import Fault, Place, with_data

Weights = dict[str, torch.Tensor]
Spoil = Callable[[Path], Any]

NORM = "model.norm.weight"
UP = "model.layers.1.mlp.up_proj.weight"
NEXT_TIME = "fetch (it|them|both)"


def with_lm(name: str, says: str, *spoil: Spoil, command: str = "fit") -> Fault:
    """Return the fault of a copy of the small model that each of `spoil` does something to."""

    def given(place: Place) -> Sequence[str]:
        folder = place.copy_of(place.lm)
        for change in spoil:
            change(folder)
        return place.data(lm=str(folder)).command(command)

    return Fault(name, given, says)


def weights(change: Callable[[Weights], Weights]) -> Spoil:
    """Return what changes the tensors of a folder."""

    def spoil(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        file = folder / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})

    return spoil


def of_type(dtype: torch.dtype) -> Spoil:
    """Return what stores every tensor in another dtype."""
    return weights(lambda given: {name: tensor.to(dtype) for name, tensor in given.items()})


def without(is_left_out: Callable[[str], bool]) -> Spoil:
    """Return what leaves tensors out."""
    return weights(lambda given: {k: v for k, v in given.items() if not is_left_out(k)})


def with_value(name: str, value: float) -> Spoil:
    """Return what puts one number into a tensor."""

    def change(given: Weights) -> Weights:
        given[name].view(-1)[0] = value
        return given

    return weights(change)


def settings(file: str = "config.json", **changes: Any) -> Spoil:
    """Return what changes a JSON file; None deletes."""

    def spoil(folder: Path) -> None:
        content = json.loads((folder / file).read_text()) | changes
        left = {name: value for name, value in content.items() if value is not ...}
        (folder / file).write_text(json.dumps(left))

    return spoil


def content(file: str, of: bytes | None) -> Spoil:
    """Return what puts bytes in the place of a file, or deletes it."""
    if of is None:
        return lambda folder: (folder / file).unlink()
    return lambda folder: (folder / file).write_bytes(of)


def pickled(folder: Path) -> None:
    """Put a pickle in the place of the weights."""
    torch.save({NORM: torch.ones(32)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def larger_vocabulary(folder: Path) -> None:
    """Give the tokenizer more tokens than the model has embeddings."""
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"] |= {f"word{n}": 300 + n for n in range(10)}
    file.write_text(json.dumps(tokenizer))


def other_model(kind: str, model: str, **sizes: Any) -> Spoil:
    """Return what puts another model, with random weights, in the folder."""

    def spoil(folder: Path) -> None:
        import transformers

        from saerepgeo.lm.weights import quiet_transformers

        config = getattr(transformers, kind)(vocab_size=400, **sizes)
        with quiet_transformers():
            getattr(transformers, model)(config).save_pretrained(folder)

    return spoil


def with_gguf(name: str, says: str, given_bytes: bytes) -> Fault:
    """Return the fault of a GGUF file."""

    def given(place: Place) -> Sequence[str]:
        return place.data(lm=str(place.write("own.gguf", given_bytes))).command()

    return Fault(name, given, says)


def gguf(n_tensors: int, n_settings: int, rest: bytes = b"") -> bytes:
    """Return the beginning of a GGUF file of version 3."""
    return b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_settings) + rest


ONE_TENSOR = gguf(
    1,
    1,
    struct.pack("<Q20sIQ5s", 20, b"general.architecture", 8, 5, b"llama")
    + struct.pack("<Q1sIQIQ", 1, b"x", 1, 64, 0, 0),
)

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}

MISSING: list[Fault] = [
    with_lm(
        "half the tensors",
        r"lack 15 \(model.embed_tokens.weight, .*, …\) of the 30 tensors",
        weights(lambda given: {name: given[name] for name in sorted(given)[::2]}),
    ),
    with_lm("a layer without one weight", rf"lack 1 \({UP}\) of the 30", without(UP.__eq__)),
    with_lm("no embeddings", r"lack 1 \(model.embed_tokens", without(lambda n: "embed" in n)),
    with_lm("no unembedding", r"lack 1 \(lm_head.weight\)", without(lambda n: "lm_head" in n)),
    with_lm(
        "all under other names",
        r"lack 30 .*of the 30.*it holds 30 \(net.lm_head.*instead",
        weights(lambda given: {f"net.{k}": v for k, v in given.items()}),
    ),
    with_lm("fewer layers than said", r"lack 18 \(model.layers.3", settings(num_hidden_layers=5)),
    with_lm(
        "a million layers", "30 tensors and.*1000000 layers", settings(num_hidden_layers=10**6)
    ),
    with_lm(
        "MLPs wider than their tensors", r"asks for \(32, 63\)", settings(intermediate_size=63)
    ),
    with_lm("very wide MLPs", "asks for .*4000000000", settings(intermediate_size=4 * 10**9)),
    with_lm("another width", "width 32 .d_in.* have 64", settings(hidden_size=64)),
    with_lm("more words than embeddings", "of shape.*asks for .*500", settings(vocab_size=500)),
    with_lm(
        "a tensor of another shape",
        rf"`{NORM}` of shape \(31,\).*asks for \(32,\)",
        weights(lambda given: given | {NORM: torch.ones(31)}),
    ),
    with_lm("no tensor at all", "0 tensors and.*3 layers", without(lambda _: True)),
]
NUMBERS: list[Fault] = (
    [
        with_lm(
            f"weights of {dtype}",
            rf"quantized weights \(.* and 29 more, {dtype}\); give the model in float32",
            of_type(kind),
        )
        for dtype, kind in (
            ("I8", torch.int8),
            ("U8", torch.uint8),
            ("F8_E4M3", torch.float8_e4m3fn),
        )
    ]
    + [
        with_lm(
            f"{value} in {name}",
            rf"damaged: `{name}` holds 1 values that are NaN or infinite",
            with_value(name, value),
            command=command,
        )
        for value, name, command in (
            (float("nan"), NORM, "fit"),
            (float("inf"), UP, "fit"),
            (float("-inf"), "model.embed_tokens.weight", "validate"),
            (float("nan"), "lm_head.weight", "test"),
        )
    ]
    + [
        with_lm(
            "weights that overflow",
            "gives NaN or infinity at `blocks.1",
            with_value(UP, 3e38),
            with_value("model.layers.1.mlp.gate_proj.weight", 3e38),
        ),
    ]
)
FILES: list[Fault] = [
    with_lm(f"{file} {name}", says, content(file, of))
    for file, name, of, says in (
        ("model.safetensors", "deleted", None, "as safetensors, got none"),
        ("model.safetensors", "empty", b"", "model.safetensors` must be whole.*fetch it again"),
        ("model.safetensors", "of rubbish", b"rubbish" * 99, "safetensors` must be whole"),
        ("model.safetensors", "with a huge header", b"\xff" * 8 + b"{}", "must be whole"),
        (
            "model.safetensors",
            "with a header that lies",
            struct.pack("<Q", 61)
            + b'{"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}'[:61],
            "must be whole",
        ),
        ("config.json", "deleted", None, r"folder with a config\.json"),
        ("config.json", "empty", b"", "configuration of model.*JSON"),
        ("config.json", "a list", b"[1]", "configuration of model"),
        ("config.json", "an empty object", b"{}", "configuration of model.*model_type"),
        ("config.json", "nested deep", b"[" * 100_000, "configuration of model.*depth"),
        ("config.json", "of bytes", bytes(range(256)), "configuration of model.*JSON"),
        ("tokenizer.json", "deleted", None, "tokenizer beside it.*save_pretrained"),
        ("tokenizer.json", "empty", b"", "the tokenizer of model.*could not be loaded"),
        ("tokenizer.json", "an object", b'{"a": 1}', "the tokenizer of model.*could not be"),
        ("tokenizer.json", "a list", b"[]", "the tokenizer of model.*could not be loaded"),
        ("tokenizer_config.json", "of rubbish", b"rubbish", "the tokenizer of model.*could not"),
    )
] + [
    with_lm(
        "a pickle in place of safetensors",
        "as safetensors, got only `pytorch_model.bin`, a pickle",
        pickled,
    ),
    with_lm(
        "no tokenizer at all",
        "tokenizer beside it",
        content("tokenizer.json", None),
        content("tokenizer_config.json", None),
    ),
    with_lm(
        "more tokens than embeddings",
        "makes tokens up to 309.*embeddings for 278",
        larger_vocabulary,
    ),
    with_lm(
        "no special token",
        "BOS, EOS or padding token, got none",
        settings("tokenizer_config.json", bos_token=..., eos_token=..., pad_token=...),
    ),
    with_lm(
        "an index of no file",
        "names the file part-1.safetensors, which is not beside it",
        content("model.safetensors", None),
        content("model.safetensors.index.json", b'{"weight_map": {"x": "part-1.safetensors"}}'),
    ),
    with_lm(
        "an index of numbers",
        "must hold a `weight_map`",
        content("model.safetensors", None),
        content("model.safetensors.index.json", b'{"weight_map": 3}'),
    ),
]
CONFIGS: list[Fault] = [
    with_lm(
        f"{name} of {value!r}",
        rf"model `.*own-tiny-lm\w*`.*{says}",
        settings(**dict[str, Any]({name: value})),
    )
    for name, value, says in (
        ("hidden_size", "32", "hidden_size.*str"),
        ("hidden_size", None, "hidden_size"),
        ("hidden_size", [32], "hidden_size.*list"),
        ("hidden_size", 0, "positive integer `hidden_size`, got 0"),
        ("hidden_size", -32, "positive integer `hidden_size`, got -32"),
        ("num_hidden_layers", "three", "num_hidden_layers.*str"),
        ("num_hidden_layers", 0, "positive integer `num_hidden_layers`, got 0"),
        ("num_attention_heads", 0, "could not be loaded"),
        ("num_attention_heads", 3, "attention heads"),
        ("vocab_size", "many", "vocab_size.*str"),
        ("vocab_size", 0, "positive integer `vocab_size`, got 0"),
        ("max_position_embeddings", 0, "positive integer `max_position_embeddings`, got 0"),
        ("max_position_embeddings", "x", "max_position_embeddings.*str"),
        ("rms_norm_eps", "x", "rms_norm_eps"),
        ("rope_parameters", "x", "rope_parameters"),
        ("hidden_act", "nothing", "could not be loaded.*nothing"),
        ("model_type", "mystery", "mystery"),
        ("model_type", 3, "model type"),
        ("model_type", ..., "model_type"),
        ("architectures", 3, "int"),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}, "quantiz"),
        ("quantization_config", "x", "could not be loaded"),
    )
]
OTHER_MODELS: list[Fault] = [
    with_lm(
        "an encoder",
        "must be causal.*an encoder .BERT",
        other_model("BertConfig", "BertForMaskedLM", **SMALL),
    ),
    with_lm(
        "an encoder unknown to TransformerLens",
        "TransformerLens cannot hook",
        other_model("RobertaConfig", "RobertaForMaskedLM", **SMALL),
    ),
    with_lm(
        "an encoder and decoder",
        "model .*(T5|t5)",
        other_model("T5Config", "T5ForConditionalGeneration", d_model=32, num_layers=3, d_ff=64),
    ),
    with_lm(
        "a model of images",
        "positive integer `vocab_size`, got None|model",
        other_model("ViTConfig", "ViTModel", **SMALL),
    ),
]
GGUFS: list[Fault] = [
    with_gguf("an empty GGUF", "own.gguf` is no GGUF file.*got b''", b""),
    with_gguf("a GGUF of rubbish", "own.gguf` is no GGUF file", b"rubbish" * 100),
    with_gguf("a GGUF cut after its mark", "own.gguf` is cut or damaged.*4 bytes", b"GGUF"),
    with_gguf("a GGUF cut in its header", "own.gguf` is cut or damaged", gguf(3, 2)),
    with_gguf("a GGUF with 2^60 tensors", "own.gguf` is cut or damaged", gguf(2**60, 0)),
    with_gguf("a GGUF with 2^60 settings", "own.gguf` is cut or damaged", gguf(0, 2**60)),
    with_gguf(
        "a GGUF of a version to come",
        "own.gguf` is cut or damaged.*version",
        b"GGUF" + b"\x63" * 99,
    ),
    with_gguf("a GGUF without tensors", "holds no tensor", gguf(0, 0)),
    with_gguf("half a GGUF", "own.gguf` is cut or damaged", ONE_TENSOR + bytes(32)),
]
HOOKS: list[Fault] = [
    with_data(f"hook {hook}", rf"`hook_name`.*{says}", hook_name=hook)
    for hook, says in (
        ("ln_final.hook_scale", r"d_model = 32 entries a position.*\(2, 8, 1\)"),
        ("blocks.1.ln1.hook_scale", r"d_model = 32.*\(2, 8, 1\)"),
        ("blocks.1.attn.hook_z", r"d_model = 32.*\(2, 8, 4, 8\)"),
        ("blocks.1.attn.hook_q", r"d_model = 32.*\(2, 8, 4, 8\)"),
        ("blocks.1.attn.hook_k", r"d_model = 32.*\(2, 8, 2, 8\)"),
        ("blocks.1.attn.hook_pattern", r"d_model = 32.*\(2, 4, 8, 8\)"),
        ("blocks.1.attn.hook_attn_scores", r"d_model = 32"),
        ("blocks.1.mlp.hook_pre", r"d_model = 32.*\(2, 8, 64\)"),
        ("blocks.1.mlp.hook_post", r"d_model = 32.*\(2, 8, 64\)"),
        ("hook_unembed", "d_model = 32"),
        ("blocks.1.hook_attn_in", "one copy a head.*hook_resid_pre"),
        ("blocks.1.hook_q_input", "one copy a head"),
        ("blocks.1.attn.hook_result", "one copy a head"),
        ("blocks.3.hook_resid_post", "layers 0 to 2 of"),
        ("blocks.1.hook_resid_psot", "near it: blocks.1.hook_resid_post"),
        ("blocks.one.hook_resid_post", "near it: "),
        ("model.layers.1", "must be a TransformerLens hook"),
        ("blocks.-1.hook_resid_post", "near it: "),
        ("", "not empty|TransformerLens hook"),
        ("blocks.1", "TransformerLens hook"),
    )
]
SIZES: list[Fault] = [
    with_data(
        "contexts beyond the positions",
        "`context_size` must be at most 64, the positions",
        context_size=65,
    ),
    with_data("contexts far beyond", "`context_size` must be at most 64", context_size=10**6),
    with_data(
        "contexts beyond, to validate",
        "`context_size` must be at most 64",
        "validate",
        context_size=99,
    ),
]
NAMES: list[Fault] = [
    with_data(f"model named {name!r}", says, lm=name)
    for name, says in (
        ("./nowhere", "model folder at `./nowhere`, found none"),
        ("/nowhere/at/all", "model folder at `/nowhere/at/all`, found none"),
        ("nowhere.gguf", "GGUF file at `nowhere.gguf`, found none"),
        ("no/such/model", "model folder at `no/such/model`, found none"),
        ("no-such-model", "model `no-such-model` could not be fetched|not on the hub"),
        ("a name/of two", "model"),
        ("", "`lm` must|model"),
        ("..", "config.json|model"),
    )
]

FAULTS: list[Fault] = [
    *MISSING,
    *NUMBERS,
    *FILES,
    *CONFIGS,
    *OTHER_MODELS,
    *GGUFS,
    *HOOKS,
    *SIZES,
    *NAMES,
]
