"""pix2pix: a conditional GAN that colors black-and-white photographs.

Importing the package is light: the module behind a name is imported when the name is first used.
"""

import importlib
import sys
from typing import Any

if sys.platform == "win32":
    # Before any module that Windows lacks is missed: `resource`, `fcntl`, signals.
    sys.exit("pix2pix runs on Linux; on Windows use WSL (https://learn.microsoft.com/windows/wsl)")

# name that users import → module that defines it
_MODULES = {
    "__version__": "pix2pix.version",
    "Colorizer": "pix2pix.colorizing.colorizer",
    "Generator": "pix2pix.export.generator",
    "TrainConfig": "pix2pix.config",
    "UserError": "pix2pix.errors",
    "open_photo": "pix2pix.photos.photo",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'pix2pix' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
