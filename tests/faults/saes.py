"""SAE folders: configs, weights, and settings of new SAEs."""

import json
import math
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from faults.faults import Fault, Place
from faults.models import Spoil, content, settings

from saerepgeo.sae.io.load import TRAINING_FOLDER, WEIGHTS_FILE

CONFIG = "cfg.json"


def with_sae(name: str, says: str, *spoil: Spoil, command: str = "fit") -> Fault:
    """Return the fault of a copy of the small SAE, in its inference form, that is spoilt."""

    def given(place: Place) -> Sequence[str]:
        folder = place.copy_of(place.sae)
        shutil.rmtree(folder / TRAINING_FOLDER)
        for change in spoil:
            change(folder)
        return place.model(sae={"path": str(folder)}).command(command)

    return Fault(name, given, says)


def new(name: str, says: str, **source: Any) -> Fault:
    """Return the fault of a new SAE."""
    options = {"architecture": "topk", "d_in": 32, "d_sae": 64, "options": {"k": 4}} | source
    return Fault(name, lambda place: place.model(sae=options).command(), says)


def tensors(**changes: torch.Tensor | None) -> Spoil:
    """Return what puts tensors in the place of others; None leaves one out."""

    def spoil(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        given = load_file(folder / WEIGHTS_FILE) | changes
        save_file({k: v for k, v in given.items() if v is not None}, folder / WEIGHTS_FILE)

    return spoil


def header(said: object, data: bytes = b"") -> Spoil:
    """Return what writes a safetensors file with a header that says this."""
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return content(WEIGHTS_FILE, struct.pack("<Q", len(text)) + text + data)


def described(dtype: object = "F32", shape: object = (96, 32), offsets: object = (0, 4)) -> Spoil:
    """Return what writes a header of one tensor over four bytes."""
    said = {"W_dec": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    return header(said, bytes(4))


SETTINGS: list[Fault] = [
    with_sae(f"{name} of {value!r}", says, settings(CONFIG, **{name: value}))
    for name, values, says in (
        (
            "d_in",
            (0, -1, True, "32", 32.0, None, [32], ...),
            "cfg.json must hold an integer `d_in`",
        ),
        ("d_in", (33, 10**12), r"of width \d+ .d_in., those of .* have 32"),
        ("d_sae", (0, -1, "96", None), "cfg.json must hold an integer `d_sae`"),
        ("d_sae", (95, 10**12), r"`\w+` must have shape .* got .*cfg.json belong to this file"),
        ("k", (0, -1, 97), r"`k` must lie within 1..d_sae = 96, got"),
        ("k", ("4", None, 4.5, [4], math.nan, True), "`k` must be int, got"),
        (
            "architecture",
            (3, None, ["topk"], {}, "mystery", "crosscoder"),
            "`architecture` must be one",
        ),
        ("architecture", ("gated", "jumprelu"), "missing: .*unknown: "),
        ("architecture", ("matryoshka_batchtopk",), "matryoshka_widths"),
        ("architecture", ("temporal", "transcoder"), "`sae`|no training form"),
        (
            "normalize_activations",
            ("mystery", 3, None, ["none"]),
            "normalize_activations.? must be",
        ),
        ("normalize_activations", ("expected_average_only_in",), "`input_scale` must be given"),
        ("normalize_activations", ("covariance_whitening",), "matrices are not folded"),
        ("apply_b_dec_to_input", ("yes", 3, None), "`apply_b_dec_to_input` must be bool"),
        ("rescale_acts_by_decoder_norm", ("yes", 1), "`rescale_acts_by_decoder_norm` must be bool"),
        ("metadata", ([1], "x", 3, True), "cfg.json must hold `metadata` by name, got"),
        ("metadata", ({"hook_name": 3}, {"hook_name": ["x"]}), "metadata.hook_name of type str"),
        ("metadata", ({"model_name": 3},), "metadata.model_name of type str"),
        ("metadata", ({"context_size": "128"},), "metadata.context_size of type int"),
        ("metadata", ({"model_from_pretrained_kwargs": [1]},), "_kwargs an object"),
        ("metadata", ({"training_architecture_details": "x"},), "_details an object"),
        ("metadata", ({"hook_name": "blocks.2.hook_resid_post"},), "belongs to hook"),
        ("metadata", ({"model_name": "gpt2"},), "x^|belongs to model|error"),
        ("metadata", ({"context_size": 8},), "contexts of 8 tokens"),
        ("metadata", ({"hook_head_index": 1},), "reads heads of"),
    )
    for value in values
    if value != {"model_name": "gpt2"}  # the small model is a folder, whose name tells nothing
]
FILES: list[Fault] = (
    [
        with_sae(f"{CONFIG} {name}", says, content(CONFIG, of))
        for name, of, says in (
            ("deleted", None, "cfg.json must exist"),
            ("empty", b"", "cfg.json must be JSON"),
            ("a list", b"[1]", "cfg.json must hold an object, got list"),
            ("an empty list", b"[]", "cfg.json must hold an object, got list"),
            ("null", b"null", "cfg.json must hold an object, got NoneType"),
            ("a number", b"3", "cfg.json must hold an object, got int"),
            ("an empty object", b"{}", "cfg.json must hold an integer `d_in`, got None"),
            ("of lists nested deep", b"[" * 100_000, "cfg.json must be JSON"),
            ("of objects nested deep", b'{"a":' * 100_000, "cfg.json must be JSON"),
            ("of bytes", bytes(range(256)), "cfg.json must be JSON"),
            ("in latin-1", '{"d_in": "é"}'.encode("latin-1"), "cfg.json must be JSON"),
            ("of a YAML tag", b"!!python/object/apply:os.system ['true']", "cfg.json must be JSON"),
            ("with NaN", b'{"d_in": NaN, "d_sae": 96}', "integer `d_in`, got nan"),
        )
    ]
    + [
        with_sae(f"weights {name}", f"{WEIGHTS_FILE} must be whole", spoil)
        for name, spoil in {
            "empty": content(WEIGHTS_FILE, b""),
            "of rubbish": content(WEIGHTS_FILE, b"rubbish" * 99),
            "cut": lambda folder: (folder / WEIGHTS_FILE).write_bytes(
                (folder / WEIGHTS_FILE).read_bytes()[:-100]
            ),
            "with a huge header": content(WEIGHTS_FILE, b"\xff" * 8 + b"{}"),
            "with a header cut": content(WEIGHTS_FILE, struct.pack("<Q", 99) + b'{"W_dec"'),
            "with a header of lists": header([]),
            "with a header nested deep": header(b"[" * 100_000),
            "with a header in latin-1": header("{é}".encode("latin-1")),
            "with numbers as metadata": header({"__metadata__": {"a": [1]}}),
            "larger than their file": described(),
            "of negative shape": described(shape=(-1,)),
            "of a shape that overflows": described(shape=(2**40, 2**40)),
            "of no shape": described(shape=None),
            "of an unknown dtype": described(dtype="X9", shape=(1,)),
            "at offsets backwards": described(shape=(1,), offsets=(4, 0)),
            "at offsets outside": described(shape=(1,), offsets=(2**62, 2**62 + 4)),
        }.items()
    ]
    + [
        with_sae("weights deleted", "safetensors must exist", content(WEIGHTS_FILE, None)),
        with_sae(
            "no file at all",
            "cfg.json must exist",
            content(WEIGHTS_FILE, None),
            content(CONFIG, None),
        ),
    ]
)
TENSORS: list[Fault] = [
    with_sae(name, says, tensors(**changes))
    for name, says, changes in (
        ("a tensor missing", "missing: b_dec, unknown: none", {"b_dec": None}),
        ("a tensor too many", "missing: none, unknown: extra", {"extra": torch.ones(1)}),
        (
            "another name",
            "missing: W_dec, unknown: W_D",
            {"W_dec": None, "W_D": torch.ones(96, 32)},
        ),
        (
            "a bias too short",
            r"`b_dec` must have shape \(32,\).*got \(31,\)",
            {"b_dec": torch.ones(31)},
        ),
        ("a bias without shape", r"`b_dec` must have shape .*got \(\)", {"b_dec": torch.ones(())}),
        (
            "a matrix transposed",
            r"`W_enc` must have shape \(32, 96\)",
            {"W_enc": torch.ones(96, 32)},
        ),
        (
            "integers",
            "`W_dec` of the SAE in .*own-sae.* must be float32.*got int8",
            {"W_dec": torch.ones(96, 32, dtype=torch.int8)},
        ),
        ("truth values", "must be float32.*got bool", {"W_dec": torch.ones(96, 32) > 0}),
        (
            "float8",
            "must be float32.*got float8",
            {"W_dec": torch.ones(96, 32).to(torch.float8_e4m3fn)},
        ),
        (
            "NaN",
            "`b_enc` of the SAE in .*own-sae.* holds 96 values that are NaN",
            {"b_enc": torch.full((96,), math.nan)},
        ),
        (
            "infinity",
            "`W_dec` of the SAE in .* holds 3,072",
            {"W_dec": torch.full((96, 32), math.inf)},
        ),
    )
]
NEW: list[Fault] = [
    new("a new SAE of another width", "width 16 .d_in.*have 32; set `sae.d_in` to 32", d_in=16),
    new("a new SAE of no width", "`sae.d_in` must be", d_in=0),
    new("a new SAE without latents", "`sae.d_sae` must be", d_sae=0),
    new("a new SAE of no architecture", "`architecture` must be one of", architecture="mystery"),
    new(
        "a new SAE with too many active",
        "`k` must lie within 1..d_sae = 64, got 65",
        options={"k": 65},
    ),
    new("a new SAE with none active", "`k` must lie within 1..d_sae", options={"k": 0}),
    new("a new SAE without k", "`k` must lie within 1..d_sae = 64, got None", options={}),
    new("a new SAE with k of text", "`k`", options={"k": "four"}),
    new("a new SAE with k of nothing", "`k` must be left out", architecture="standard"),
    new(
        "a misspelt option", "l1_coefficent", architecture="standard", options={"l1_coefficent": 1}
    ),
    new(
        "an option of text",
        "`l1_coefficient` must be float",
        architecture="standard",
        options={"l1_coefficient": "much"},
    ),
    new("a new SAE and a folder", "exactly one of", path="."),
]
FAULTS: list[Fault] = [*SETTINGS, *FILES, *TENSORS, *NEW]
