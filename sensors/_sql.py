"""Condition-indicator trends out of a plant's historian: a query in a file, its database named in the environment."""

import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from unlabeled.core.errors import DataError

SUFFIX = ".sql"
# An SQLAlchemy URL, which holds a password more often than not: it stands in no command, job file or log.
VARIABLE = "UNLABELED_DATABASE"
_AT_ONCE = 100_000  # rows
# What keeps a query from changing anything, where the database knows such a thing; elsewhere only SELECT is asked, as a
# WITH can end in a DELETE.
_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "postgresql": "SET TRANSACTION READ ONLY",
    "mysql": "SET TRANSACTION READ ONLY",
    "mariadb": "SET TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
}


def query(path: Path) -> pd.DataFrame:
    """What the database answers, read in chunks, in a transaction that is rolled back.

    Raises:
        DataError: no database is named, the file asks for something else than rows, or the database refuses; the
            database's address is never quoted.
    """
    try:
        import sqlalchemy
    except ModuleNotFoundError:
        raise DataError(f"{path}: queries need SQLAlchemy: pip install 'unlabeled[formats]'") from None
    text = path.read_text(encoding="utf-8").strip().removesuffix(";")
    begins = re.match(r"(?is)(--[^\n]*\n|\s)*(select|with)\b", text)
    if begins is None:
        raise DataError(f"{path} is no query that begins with SELECT or WITH")
    url = os.environ.get(VARIABLE)
    if not url:
        raise DataError(f"{path} is a query: set {VARIABLE} to the SQLAlchemy URL of the database that it is for")
    try:
        engine = sqlalchemy.create_engine(url)
        connection = engine.connect()
    except Exception as error:  # drivers raise what they like, and their words hold host and user
        raise DataError(f"{path}: the database cannot be reached ({type(error).__name__})") from None
    with connection:
        guard = _READ_ONLY.get(engine.dialect.name)
        if guard is None and begins[2].lower() != "select":
            raise DataError(
                f"{path}: of a {engine.dialect.name} database only a query that begins with SELECT is asked"
            )
        try:
            if guard is not None:
                connection.exec_driver_sql(guard)
            # As it stands: a colon in it is no parameter of ours.
            result = connection.execution_options(yield_per=_AT_ONCE).exec_driver_sql(text)
            names = list(result.keys())
            parts = [pd.DataFrame(rows, columns=names) for rows in result.partitions()]
        except Exception as error:
            raise DataError(f"{path}: the database refuses the query ({_why(error, engine.url)})") from None
        finally:
            connection.rollback()
    engine.dispose()
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _why(error: Exception, url: Any) -> str:
    """The driver's own first line without what the address is made of."""
    said = str(getattr(error, "orig", None) or error).splitlines()
    words = said[0] if said else ""
    for secret in (url.password, url.username, url.host, url.database):
        if secret:
            words = words.replace(str(secret), "...")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
