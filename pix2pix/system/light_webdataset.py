"""The package webdataset in processes that have no torch and should get none."""

import sys
from functools import cache
from types import ModuleType

_TORCH = "torch"
_WEBDATASET = "webdataset"


@cache
def import_webdataset() -> ModuleType:
    """Return the package webdataset, without loading torch for it.

    Importing it imports torch: 2.5 s and 500 MB. Where that fails it goes on with stand-ins, 0.2 s
    and 35 MB, but its `WebDataset` is then no `IterableDataset`. So where torch is not loaded yet,
    the copy without it is this function's alone, and who imports webdataset later gets another,
    with torch. Not for processes whose other threads may import torch meanwhile.

    Raises:
        ImportError: It is not installed, or broken.
    """
    if _WEBDATASET in sys.modules or sys.modules.get(_TORCH) is not None:
        import webdataset

        return webdataset
    # Python takes None for a module that cannot be found.
    sys.modules[_TORCH] = None  # type: ignore[assignment]
    try:
        import webdataset

        return webdataset
    finally:
        del sys.modules[_TORCH]
        for name in [name for name in sys.modules if name.partition(".")[0] == _WEBDATASET]:
            del sys.modules[name]
