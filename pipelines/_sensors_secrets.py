"""Passwords and tokens of a monitoring job: never in its file, never unencrypted over a network unasked."""

import os
from pathlib import Path

from unlabeled.core.errors import DataError

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def secret_of(where: str, variable: str | None, file: Path | None) -> str | None:
    """From the variable or file that the job file names; a secret never stands in the job file itself.

    Raises:
        DataError: it is not there.
    """
    if variable is not None:
        if not os.environ.get(variable):
            raise DataError(f"the environment has no {variable}, which {where} names")
        return os.environ[variable]
    if file is None:
        return None
    try:
        found = file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        raise DataError(f"the file that {where} names cannot be read ({type(error).__name__})") from None
    if not found:
        raise DataError(f"the file that {where} names is empty")
    return found
