"""Content decides which model is meant, nothing of a file runs, random files end well."""

import json
import os
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.malicious import EVIL, FAULTS
from faults.models import weights
from full_disks import small_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saerepgeo.data.module import ActivationDataModule
from saerepgeo.lm import gguf
from saerepgeo.lm.frozen import FrozenLM
from saerepgeo.lm.sources import load_model, model_fingerprint, resolve_model
from saerepgeo.sae.io.build import new_sae
from saerepgeo.sae.io.export import save_sae
from saerepgeo.sae.io.load import WEIGHTS_FILE, load_sae, read_config

ONCE_EACH = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_weights_replaced_at_the_same_time_and_size_are_other_weights(
    tiny_lm: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_lm, tmp_path / "lm"))
    file, before = folder / "model.safetensors", model_fingerprint(str(folder))
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    weights(lambda given: {name: 2 * tensor for name, tensor in given.items()})(folder)
    os.utime(file, ns=times)
    assert model_fingerprint(str(folder)) != before


def test_a_copy_of_a_model_is_the_same_model(tiny_lm: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_lm, tmp_path / "lm")
    assert model_fingerprint(str(copy)) == model_fingerprint(str(tiny_lm))


def test_a_gguf_of_the_same_name_and_size_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "_check_whole", lambda path: None)
    seen = []

    def convert(path: Path, folder: Path) -> None:
        seen.append(path.read_bytes())
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(gguf, "_convert", convert)
    folders = []
    for number, content in enumerate((b"GGUF one", b"GGUF two", b"GGUF one")):
        file = tmp_path / str(number) / "model.gguf"
        file.parent.mkdir()
        file.write_bytes(content)
        os.utime(file, ns=(0, 0))
        folders.append(resolve_model(str(file)))
    assert seen == [b"GGUF one", b"GGUF two"]
    assert folders[0] == folders[2] != folders[1]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_gguf_is_converted_for_one_run_where_the_cache_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    monkeypatch.setattr(gguf, "_check_whole", lambda path: None)
    monkeypatch.setattr(
        gguf, "_convert", lambda file, to: (to / "config.json").write_bytes(bytes(9000))
    )
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with small_disk(tmp_path / "disk", 8, read_only) as disk:
        monkeypatch.setenv("SAEREPGEO_CACHE", str(disk))
        with pytest.warns(UserWarning, match=r"No space|Read-only") as said:
            folder = Path(resolve_model(str(file)))
        assert "converted for this run alone" in str(said[0].message)
        assert len((folder / "config.json").read_bytes()) == 9000
        assert resolve_model(str(file)) == str(folder)  # once


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_other_float_types_are_read(tiny_lm: Path, tmp_path: Path, dtype: Any) -> None:
    folder = Path(shutil.copytree(tiny_lm, tmp_path / "lm"))
    weights(lambda given: {name: tensor.to(dtype) for name, tensor in given.items()})(folder)
    found = load_model(str(folder)).state_dict()
    expected = load_model(str(tiny_lm)).state_dict()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_special_tokens_may_lie_beyond_the_embeddings(tiny_lm: Path, tmp_path: Path) -> None:
    """As Gemma 3's picture token does: text never becomes one."""
    folder = Path(shutil.copytree(tiny_lm, tmp_path / "lm"))
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    added = {"id": 300, "content": "<picture>", "special": True, "normalized": False}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    tokenizer["added_tokens"].append(added)
    file.write_text(json.dumps(tokenizer))
    lm = FrozenLM.load(str(folder), "blocks.1.hook_resid_post", "float32")
    tokens, _ = lm.tokenizer.encode(["the <picture> of January"])
    assert int(tokens.max()) < 278


def test_a_sound_model_is_loaded_for_the_check_once(
    tiny_data: dict[str, Any], tiny_lm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAEREPGEO_CACHE", str(tmp_path / "cache"))
    first = ActivationDataModule(**tiny_data)
    first.prepare_data()
    assert "lm" in vars(first)
    again = ActivationDataModule(**tiny_data)
    again.prepare_data()
    assert "lm" not in vars(again)


@pytest.mark.parametrize("hook", ["blocks.1.hook_mlp_out", "blocks.1.hook_mlp_in"])
def test_losses_with_the_sae_spliced_in_at_any_hook(tiny_lm: Path, hook: str) -> None:
    lm = FrozenLM.load(str(tiny_lm), hook, "float32")
    tokens = torch.randint(3, 250, (3, 10), generator=torch.Generator().manual_seed(1))
    clean = FrozenLM.load(str(tiny_lm), "blocks.1.hook_resid_post", "float32").token_losses(tokens)
    torch.testing.assert_close(lm.token_losses(tokens)[0], clean[0])
    zeroed = lm.token_losses(tokens, torch.zeros_like)[0]
    model = load_model(str(tiny_lm))
    model.model.layers[1].mlp.register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    with torch.no_grad():
        log_probs = model(tokens).logits.log_softmax(-1)
    expected = -log_probs[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    torch.testing.assert_close(zeroed, expected)
    assert not torch.allclose(zeroed, clean[0], atol=1e-6)


def test_no_malicious_file_has_run() -> None:
    """After the rows of the family: this file comes last of the two that load them."""
    assert FAULTS
    assert not EVIL.exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
NAMES = [
    *("d_in", "d_sae", "k", "architecture", "metadata", "normalize_activations", "dtype", "device"),
    *("reshape_activations", "rescale_acts_by_decoder_norm", "activation_fn", "hook_name"),
    *("apply_b_dec_to_input", "sae_lens_version"),
]


@pytest.fixture(scope="module")
def sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "sae"
    return save_sae(new_sae("topk", d_in=8, d_sae=16, k=2), folder, with_training_form=False)


def ends_well(folder: Path) -> None:
    """Load an SAE: it succeeds, or says why not."""
    with suppress(ValueError):
        read_config(path=folder)
        load_sae(path=folder)


@ONCE_EACH
@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3))
def test_random_configs_of_an_sae(sae_folder: Path, changes: dict[str, Any]) -> None:
    file = sae_folder / "cfg.json"
    before = file.read_bytes()
    try:
        file.write_text(json.dumps(json.loads(before) | changes))
        ends_well(sae_folder)
    finally:
        file.write_bytes(before)


TENSOR = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "F8_E4M3", "F4", "BOOL", "C64", "X"]),
        "shape": st.lists(st.integers(-1, 2**62), max_size=3) | st.just([16, 8]),
        "data_offsets": st.lists(st.integers(0, 2**62), min_size=2, max_size=2) | st.just([0, 512]),
    }
)


@ONCE_EACH
@given(st.dictionaries(st.sampled_from(["W_dec", "W_enc", "b_enc", "x"]), TENSOR | JSON), JSON)
def test_random_headers_of_an_sae(sae_folder: Path, said: dict[str, Any], metadata: Any) -> None:
    file = sae_folder / WEIGHTS_FILE
    before = file.read_bytes()
    header = json.dumps(said | {"__metadata__": metadata}).encode()
    try:
        file.write_bytes(struct.pack("<Q", len(header)) + header + bytes(512))
        ends_well(sae_folder)
    finally:
        file.write_bytes(before)
