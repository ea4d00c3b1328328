"""SAELens, imported where it is used and without its import-time noise."""

import warnings
from types import ModuleType


def sae_lens() -> ModuleType:
    """Return the SAELens package, imported on first use (it takes seconds).

    Its own imports of deprecated names warn, which no user of this package can mend.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import sae_lens as package
    return package
