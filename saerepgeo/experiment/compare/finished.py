"""Which SAEs a comparison has finished: rows on disk, by what they were computed from."""

import hashlib
import json
import sys
from typing import Any

from saerepgeo.data.module import ActivationDataModule
from saerepgeo.experiment.compare.settings import Comparison
from saerepgeo.files import content_sum, read_text, write_bytes
from saerepgeo.lm.sources import model_fingerprint
from saerepgeo.report.files import parsed_rows, rows_text
from saerepgeo.report.results import COLUMNS, typed_rows

FORMAT = "comparison/3"
"""To be changed with a formula: what was finished before is then computed anew."""
FOLDER = "finished"
SUM = "# sum "
"""Begins the last line of a file."""
Row = dict[str, Any]


class Finished:
    """The finished SAEs of comparisons with one hook and one set of settings.

    An SAE's file, its rows and those of its hook's residuals, is named by the hash of its contents
    and of the settings that matter: model, hook, prompts, held-out text, metrics, draws. It appears
    whole. Names, paths and dates do not count, nor does the code of a metric of one's own.
    """

    def __init__(self, comparison: Comparison, data: ActivationDataModule, metrics: str) -> None:
        self.folder = f"{comparison.output.rstrip('/')}/{FOLDER}"
        h = data.hparams
        tokens = data.heldout_contexts()
        self._about = [
            *(FORMAT, h["lm"], model_fingerprint(h["lm"]), h["hook_name"], h["lm_dtype"]),
            *(h["center_residuals"], comparison.draws, comparison.n_contexts, metrics),
            [vars(concept) for concept in data.prompts],
            hashlib.sha256(tokens.numpy().tobytes()).hexdigest(),
        ]

    def path(self, contents: str) -> str:
        """Return the file of an SAE by its contents."""
        text = json.dumps([*self._about, contents])
        return f"{self.folder}/{hashlib.sha256(text.encode()).hexdigest()[:24]}.csv"

    def rows(self, contents: str, name: str) -> list[Row] | None:
        """Return the rows of an SAE under its present name; None where it is not finished."""
        path = self.path(contents)
        try:
            text, _, end = read_text(path).rpartition(SUM)
            if end.strip() != content_sum(text):
                raise ValueError("its checksum is another")
            rows = typed_rows(parsed_rows(text, path))
        except FileNotFoundError:
            return None
        except (ValueError, LookupError) as error:
            reason = str(error).splitlines()[0]
            print(f"{path} is damaged and is computed again: {reason}", file=sys.stderr)
            return None
        return [row | {"sae": name if row["sae"] else ""} for row in rows] or None

    def keep(self, contents: str, rows: list[Row]) -> None:
        """Write the rows of an SAE, all or nothing, and their checksum."""
        text = rows_text(rows, COLUMNS)
        write_bytes(self.path(contents), f"{text}{SUM}{content_sum(text)}\n".encode())
