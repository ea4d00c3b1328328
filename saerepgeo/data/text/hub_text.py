"""Documents of a Hugging Face data set, streamed."""

import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from saerepgeo.data.text.text_files import FIELD, READER_VERSION


class HubText:
    """The column `text` of a streamed Hugging Face data set, `NAME[:CONFIG[:SPLIT]]`."""

    is_finite = False

    def __init__(self, name: str) -> None:
        self.name, *options = name.split(":")
        if not self.name or len(options) > 2:
            raise ValueError(f'expected "hf:NAME[:CONFIG[:SPLIT]]", got "hf:{name}"')
        self.config, split = [*options, "", ""][:2]
        self.split = split or "train"

    def documents(self) -> Iterator[str]:
        """Yield the documents."""
        row: dict[str, Any] | None = None
        for row in self._rows():
            if not isinstance(row.get(FIELD), str):
                found = ", ".join(row)
                raise ValueError(f"hf:{self.name}: no string in column {FIELD!r}, found {found}")
            yield row[FIELD]
        if row is None:
            raise ValueError(f"no text in hf:{self.name}, split {self.split!r}")

    def _rows(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._builder.as_streaming_dataset(split=self.split)
        except (OSError, ValueError) as error:
            raise ValueError(f"hf:{self.name}: {_first_line(error)}") from error
        except StopIteration:  # out of `datasets`, from a file without a row
            return

    @property
    def fingerprint(self) -> str:
        """The builder's hash covers the revision of the data set, or the files of a local one."""
        builder = self._builder
        key = [self.name, builder.config_id, str(builder.hash), self.split, FIELD]
        return hashlib.sha256(READER_VERSION + json.dumps(key).encode()).hexdigest()

    @cached_property
    def _builder(self) -> Any:
        from datasets import load_dataset_builder

        try:
            return load_dataset_builder(self.name, self.config or None)
        except (OSError, ValueError) as error:
            reason = _first_line(error)
            raise ValueError(f"cannot open the data set hf:{self.name}: {reason}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
