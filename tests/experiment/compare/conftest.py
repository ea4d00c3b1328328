"""A small comparison, and the order in which it computes."""

from pathlib import Path
from typing import Any

import pytest
from small_comparison import Row, write_comparison

from saerepgeo.experiment.compare import command, one_sae
from saerepgeo.experiment.compare.listing import Listed


@pytest.fixture
def config(tmp_path: Path, few_prompts: dict[str, Any]) -> Path:
    """A comparison of two SAEs of one hook and one of another."""
    return write_comparison(tmp_path, few_prompts)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the SAEs that are computed, in order."""
    names: list[str] = []

    def noted(listed: Listed, *rest: Any) -> list[Row]:
        names.append(listed.name)
        return one_sae.rows_of(listed, *rest)

    monkeypatch.setattr(command, "rows_of", noted)
    return names
