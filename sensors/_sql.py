"""Condition-indicator trends out of a plant's historian: a query in a file, its database named in the environment."""

import os
import re
from pathlib import Path

import pandas as pd

from unlabeled.core.errors import DataError

SUFFIX = ".sql"
# An SQLAlchemy URL, which holds a password more often than not: it stands in no command, job file or log.
VARIABLE = "UNLABELED_DATABASE"
_AT_ONCE = 100_000  # rows


def query(path: Path) -> pd.DataFrame:
    """What the database answers, read in chunks.

    Raises:
        DataError: no database is named, the file asks for something else than rows, or the database refuses; the
            database's address is never quoted.
    """
    try:
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    except ModuleNotFoundError:
        raise DataError(f"{path}: queries need SQLAlchemy: pip install 'unlabeled[formats]'") from None
    text = path.read_text(encoding="utf-8").strip()
    if not re.match(r"(?is)(--[^\n]*\n|\s)*(select|with)\b", text):
        raise DataError(f"{path} is no query that begins with SELECT or WITH")
    url = os.environ.get(VARIABLE)
    if not url:
        raise DataError(
            f"{path} is a query: say of which database, as an SQLAlchemy URL, in the environment's {VARIABLE}"
        )
    try:
        with sqlalchemy.create_engine(url).connect() as connection:
            result = connection.execution_options(yield_per=_AT_ONCE).execute(sqlalchemy.text(text))
            names = list(result.keys())
            parts = [pd.DataFrame(rows, columns=names) for rows in result.partitions()]
    except (SQLAlchemyError, ModuleNotFoundError, ValueError) as error:
        raise DataError(f"{path}: the database cannot be asked ({_why(error)})") from None
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _why(error: Exception) -> str:
    """The driver's own first line, which names no address, or the kind of error."""
    said = str(getattr(error, "orig", None) or "").splitlines()
    return f"{type(error).__name__}: {said[0]}" if said and "://" not in said[0] else type(error).__name__
