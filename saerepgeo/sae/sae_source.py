"""Which SAE a module works on: a SAELens release, a folder, or a new one."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saerepgeo.bounds import Positive, PositiveInt, check_settings
from saerepgeo.lm.sums import file_sum, once
from saerepgeo.sae.model import SAEModel
from saerepgeo.shipped import located


@dataclass
class SAESource:
    """Exactly one of `path`, `release` with `sae_id`, or `architecture` with `d_in` and `d_sae`.

    Attributes:
        path: folder in the SAELens, dictionary_learning or sparsify format; the shipped one is
            checkpoints/smollm2-135m, wherever the command runs.
        release: a release of SAELens' registry, with its `sae_id`.
        architecture: make a new SAE of this architecture, from `d_in` to `d_sae`.
        options: settings of a new SAE (e.g. k), or the training settings of a loaded one.
        input_scale: constant input factor, where the SAE's files need but do not hold it.
    """

    path: str | None = None
    release: str | None = None
    sae_id: str | None = None
    architecture: str | None = None
    d_in: PositiveInt | None = None
    d_sae: PositiveInt | None = None
    options: dict[str, Any] = field(default_factory=dict)
    input_scale: Positive | None = None

    @property
    def folder(self) -> Path | None:
        """Where `path` is."""
        return None if self.path is None else located(self.path)

    def check(self) -> None:
        """Raise ValueError where the source is not one, or its folder is missing."""
        check_settings(SAESource, vars(self), prefix="sae.")
        given = [n for n in ("path", "release", "architecture") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                "`sae` must name exactly one of `path`, `release` (with `sae_id`) or "
                f"`architecture` (a new SAE), got {', '.join(given) or 'none'}"
            )
        if self.release is not None and self.sae_id is None:
            raise ValueError(f"`sae.release` {self.release} needs `sae.sae_id`, got None")
        if self.architecture is not None and (self.d_in is None or self.d_sae is None):
            raise ValueError("a new SAE (`sae.architecture`) needs `sae.d_in` and `sae.d_sae`")
        if self.folder is not None and not self.folder.is_dir():
            raise ValueError(f"`sae.path` must be a folder that holds an SAE, got {self.path}")

    def check_use(self, stage: str) -> None:
        """Refuse, without reading any weights, what the SAE's architecture cannot do at a stage.

        An `InferenceOnlySAE` is not trained. `validate` and `predict` encode points without their
        context and compare reconstructions with the residuals that were read: neither a temporal
        SAE nor a transcoder can. Case 3's `test` needs to know what a transcoder reconstructs.

        Raises ValueError with one line that says what can be done instead of Lightning's `stage`.
        """
        from saerepgeo.sae.inference_only import INFERENCE_ONLY

        stage = getattr(stage, "value", stage)  # Lightning's is an enum
        config = self.read_config()
        architecture = config.get("architecture", "standard")
        if not isinstance(architecture, str) or architecture not in INFERENCE_ONLY:
            return
        reads_context = INFERENCE_ONLY[architecture].reads_context
        out = (config.get("metadata") or {}).get("hook_name_out")
        if stage == "test" and (reads_context or out):
            return
        cases = "configs/case1.yaml, case2.yaml or case3.yaml"
        if stage == "fit":
            reason = "has no training form"
        elif reads_context:
            reason = "encodes whole prompts and no points alone"
        elif out:
            reason = f"reconstructs `{out}` and not the residuals that it reads"
        else:
            reason = "reconstructs a hook that its metadata do not name (hook_name_out)"
            cases = "configs/case1.yaml or case2.yaml"
        raise ValueError(
            f"`sae` is a {architecture} SAE, which {reason}: `{stage}` cannot use it here; run "
            f"`test` with {cases}"
        )

    def read_config(self) -> dict[str, Any]:
        """Return the SAE's config (d_in, d_sae, metadata, …) without reading any weights."""
        from saerepgeo.sae.io.load import read_config

        self.check()
        if self.architecture is not None:
            return {"architecture": self.architecture, "d_in": self.d_in, "d_sae": self.d_sae}
        return read_config(self.release, self.sae_id, self.path)

    def check_weights(self) -> None:
        """Read the SAE of a folder once, to refuse before a run what cannot be used.

        Raises ValueError on damaged weights, and on settings that the SAE has not got.
        """
        from saerepgeo.sae.io.build import check_new

        if self.architecture is not None:
            check_new(self.architecture, self.d_in or 0, self.d_sae or 0, self.options)
        elif self.folder is not None:
            files = sorted(file for file in self.folder.rglob("*") if file.is_file())
            facts = [str(vars(self)), *map(file_sum, files)]
            once(json.dumps(["sound SAE/1", *facts]), self.build)

    def build(self, seed: int = 0) -> SAEModel:
        """Load the SAE, or make it; `seed` serves for a new one."""
        from saerepgeo.sae.io.build import new_sae
        from saerepgeo.sae.io.load import load_sae

        self.check()
        if self.architecture is None:
            where = self.release, self.sae_id, self.path
            return load_sae(*where, training=self.options or None, input_scale=self.input_scale)
        sizes: dict[str, Any] = {"d_in": self.d_in, "d_sae": self.d_sae}
        return new_sae(self.architecture, **sizes, seed=seed, **self.options)
