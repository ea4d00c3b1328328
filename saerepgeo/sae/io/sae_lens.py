"""SAELens, imported where it is used and without its import-time noise."""

import warnings
from types import ModuleType


def sae_lens() -> ModuleType:
    """Return the SAELens package, imported on first use (it takes seconds)."""
    with warnings.catch_warnings():  # its own imports of deprecated names warn
        warnings.simplefilter("ignore", DeprecationWarning)
        import sae_lens as package
    return package
