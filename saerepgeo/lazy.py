"""The public names of a package, said once: its imports of the form `X as X`."""

import ast
import importlib
import linecache
import sys
from typing import Any


def export_names(package: str) -> None:
    """Make the imports `from module import X as X` in a package's `__init__` its public names.

    Those under `if TYPE_CHECKING:`, which type checkers follow and Python does not, are imported
    when they are first used, so that the package imports cheaply. ImportError without the source
    of the `__init__`, which names them.
    """
    module = sys.modules[package]
    tree = ast.parse("".join(linecache.getlines(module.__file__ or "", vars(module))))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    homes = {a.name: node.module for node in imports for a in node.names if a.asname == a.name}
    if not homes:
        raise ImportError(f"the source of {package} is not beside it; install the whole package")

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(str(homes[name])), name)
        setattr(module, name, value)
        return value

    vars(module).update(
        __all__=list(homes), __getattr__=load, __dir__=lambda: sorted({*vars(module), *homes})
    )
