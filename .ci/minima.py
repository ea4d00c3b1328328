"""Print the minimum versions that pyproject.toml declares, as exact requirements for pip."""

import re
import tomllib
from pathlib import Path

declared = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
lists = [
    declared["build-system"]["requires"],
    declared["project"]["dependencies"],
    *declared["project"]["optional-dependencies"].values(),
]
for requirement in (each for requirements in lists for each in requirements):
    if ">=" in requirement:
        print(re.sub(r">=([\d.]+).*", r"==\1", requirement))
