"""Files made to run code, to leave their folder, or to play with the screen.

`EVIL` is the file that code out of any of them would write; `test_models.py` looks for it.
"""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from faults.faults import Fault, Place
from faults.models import content, settings, with_lm
from faults.saes import CONFIG, with_sae

from saerepgeo.sae.io.load import WEIGHTS_FILE

EVIL = Path("/tmp/saerepgeo-code-of-a-file-was-run")
CODE = f"open({str(EVIL)!r}, 'w')"
ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\u202egnp"


class Pickled:
    """What runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, (CODE,)


def modules(folder: Path) -> None:
    """Put code beside the model, under the names that its config gives."""
    (folder / "own.py").write_text(f"{CODE}\nclass Config: pass\nclass Model: pass\n")


AUTO_MAP = {
    "AutoConfig": "own.Config",
    "AutoModelForCausalLM": "own.Model",
    "AutoTokenizer": "own.T",
}


def pickled_sae(place: Place) -> Sequence[str]:
    """Return the command that meets a dictionary_learning SAE whose weights are a pickle."""
    folder = place.write("ae/ae.pt", pickle.dumps({"encoder.weight": Pickled()})).parent
    trainer = {"dict_class": "AutoEncoder", "activation_dim": 32, "dict_size": 64, "layer": 1}
    place.write("ae/config.json", json.dumps({"trainer": trainer}))
    return place.model(sae={"path": str(folder)}).command()


def zipped_sae(place: Place) -> Sequence[str]:
    """Return the command that meets such weights as torch writes them."""
    arguments = pickled_sae(place)
    torch.save({"encoder.weight": Pickled()}, place.folder / "ae" / "ae.pt")
    return arguments


FAULTS: list[Fault] = [
    Fault("an SAE of pickled code", pickled_sae, "ae.pt must hold plain tensors.*could run code"),
    Fault("an SAE of zipped code", zipped_sae, "ae.pt must hold plain tensors.*could run code"),
    with_sae(
        "code in the place of an SAE's safetensors",
        "safetensors must be whole",
        content(WEIGHTS_FILE, pickle.dumps(Pickled())),
    ),
    with_sae(
        "a YAML tag as an SAE's config",
        "cfg.json must be JSON",
        content(CONFIG, f"!!python/object/apply:exec [{CODE!r}]".encode()),
    ),
    with_sae(
        "escapes as an SAE's hook",
        r"belongs to hook `\\x1b\[2J",
        settings(CONFIG, metadata={"hook_name": ESCAPES}),
    ),
    with_sae(
        "escapes as an architecture",
        r"`architecture` must be.*\\x1b\[2J",
        settings(CONFIG, architecture=ESCAPES),
    ),
    with_sae(
        "escapes as normalization",
        r"must be.*\\x1b\[2J",
        settings(CONFIG, normalize_activations=ESCAPES),
    ),
    with_lm(
        "code as pytorch_model.bin",
        "as safetensors, got only `pytorch_model.bin`",
        content("model.safetensors", None),
        lambda folder: torch.save({"x": Pickled()}, folder / "pytorch_model.bin"),
    ),
    with_lm(
        "code in the place of a model's safetensors",
        "must be whole",
        content("model.safetensors", pickle.dumps(Pickled())),
    ),
    with_lm(
        "a model of own code", "custom code", modules, settings(auto_map=AUTO_MAP, model_type="own")
    ),
    with_lm(
        "a model of own code that asks to be trusted",
        "custom code",
        modules,
        settings(auto_map=AUTO_MAP, model_type="own", trust_remote_code=True),
    ),
    with_lm("escapes as a type of model", r"\\x1b\[2J", settings(model_type=ESCAPES)),
    with_lm(
        "an index that leaves its folder",
        "names the file passwd, which is not beside it",
        content("model.safetensors", None),
        content("model.safetensors.index.json", b'{"weight_map": {"x": "../../../etc/passwd"}}'),
    ),
    with_lm(
        "an index of an absolute path",
        "names the file passwd, which is not beside it",
        content("model.safetensors", None),
        content("model.safetensors.index.json", b'{"weight_map": {"x": "/etc/passwd"}}'),
    ),
    with_lm(
        "an index of escapes",
        r"names the file \\x1b",
        content("model.safetensors", None),
        content(
            "model.safetensors.index.json",
            json.dumps({"weight_map": {"x": ESCAPES}}).encode(),
        ),
    ),
]
