"""Self-supervised detectors for chest X-rays, vibration and card payments, on one shared core.

The rooms (``unlabeled.core``, ``unlabeled.medical``, ...) live at the repository's root and are
reached through symbolic links, so that one import name serves a checkout, a wheel and a type checker.
"""

from importlib import metadata
from pathlib import Path

__all__ = ["__version__"]

if (Path(__file__).parent / "core").is_file():
    # git writes a link as a small text file where symbolic links are switched off.
    raise ImportError(
        "src/unlabeled/core is a plain file, not a link: this checkout was made without symbolic links. "
        "On Windows switch on Developer Mode, run 'git config core.symlinks true' and check out again."
    )

try:
    __version__ = metadata.version("unlabeled")
except metadata.PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
