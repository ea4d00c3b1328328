"""What comes with the package, in a checkout and in a wheel alike: configurations, and an SAE."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).parent
_FOLDER = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent
"""A wheel has both folders in the package (see pyproject.toml), a checkout beside it."""
CONFIGS = _FOLDER / "configs"


def located(path: str | Path) -> Path:
    """Return a path, or where what is shipped under it stands if nothing is there.

    >>> located("checkpoints/smollm2-135m").is_dir(), located("nowhere/model").as_posix()
    (True, 'nowhere/model')
    """
    path, here = Path(path), os.path.exists(path)
    is_ours = path.parts[:1] in (("configs",), ("checkpoints",)) and ".." not in path.parts
    return _FOLDER / path if is_ours and not here and (_FOLDER / path).exists() else path


def config_file(name: str) -> str:
    """Return the path of a configuration: `name`, or if no file is there the shipped one of it.

    >>> Path(config_file("case3")).name, config_file("configs/models/x.yaml")
    ('case3.yaml', 'configs/models/x.yaml')
    """
    own, is_here = config_name(name), os.path.isfile(name)
    return name if is_here or own not in config_names() else str(CONFIGS / f"{own}.yaml")


def config_name(path: str) -> str:
    """Return the name of a configuration whose path is written out.

    >>> config_name("configs/models/gpt2-small.yaml")
    'models/gpt2-small'
    """
    return Path(path).as_posix().removeprefix("configs/").removesuffix(".yaml")


def config_names() -> list[str]:
    """Return the names of the shipped configurations, overlays for other models last."""
    files = [*sorted(CONFIGS.glob("*.yaml")), *sorted(CONFIGS.glob("*/*.yaml"))]
    return [config_name(str(file.relative_to(CONFIGS))) for file in files]
