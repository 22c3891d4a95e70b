"""Which column of a table plays which part."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.errors import DataError

_NAMES: dict[str, tuple[str, ...]] = {
    "time": (
        *("time", "time_s", "timestamp", "datetime", "unix_time", "tx_time", "tx_datetime", "transaction_time"),
        *("trans_date_trans_time", "transaction_date", "date", "event_time", "created_at"),
    ),
    "amount": ("amount", "amt", "tx_amount", "transaction_amount", "transactionamt", "value", "payment_amount"),
    "entity": (
        *("customer_id", "customer", "card_id", "card", "card_number", "cc_num", "account_id", "account"),
        *("user_id", "user", "client_id", "client", "cardholder", "nameorig"),
    ),
    "counterparty": (
        *("merchant_id", "merchant", "terminal_id", "terminal", "payee", "payee_id", "shop", "shop_id"),
        *("beneficiary", "namedest"),
    ),
    "label": ("fraud", "is_fraud", "isfraud", "tx_fraud", "label", "class"),
    "row_id": ("tx_id", "row_id", "transaction_id", "transactionid", "trans_num", "payment_id", "id"),
}
_PLACES = (
    ("home_lat", "home_long", "merch_lat", "merch_long"),
    ("home_lat", "home_lon", "merch_lat", "merch_lon"),
    ("lat", "long", "merch_lat", "merch_long"),
)
_REQUIRED = ("time", "amount")
_MOST_VALUES = 5_000  # a text column with more different values is free text to us


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Column names by part.

    Attributes:
        time: seconds (any origin), milliseconds since 1970, or dates.
        amount: what was paid, zero or more.
        entity: who pays (card, customer, account); without one, rows are judged without a history.
        counterparty: who is paid (merchant, terminal).
        categories: text or codes that say what kind of payment it is.
        numbers: further numbers known at the time of the payment.
        places: latitude and longitude of home and of the merchant; turned into one number, ``distance_km``.
        label: 1 fraud, 0 genuine, empty or -1 unknown. Never an input.
        row_id: names a row; also breaks ties in time.
        ignored: seen, and not used.
    """

    time: str
    amount: str
    entity: str | None = None
    counterparty: str | None = None
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    places: tuple[str, str, str, str] | None = None
    label: str | None = None
    row_id: str | None = None
    ignored: tuple[str, ...] = ()

    def columns(self, *, label: bool = True) -> list[str]:
        """Every column that is read."""
        single = [self.time, self.amount, self.entity, self.counterparty, self.row_id, self.label if label else None]
        return [*(name for name in single if name), *self.categories, *self.numbers, *(self.places or ())]

    def check(self, columns: Iterable[str], *, label: bool = False) -> None:
        """Raises a DataError that names the missing columns and those there are."""
        there = [str(name) for name in columns]
        missing = [name for name in self.columns(label=label) if name not in there]
        if missing:
            named = asdict(self)
            parts = [
                next((f"{part} '{name}'" for part, n in named.items() if n == name), f"'{name}'") for name in missing
            ]
            raise DataError(f"the table has no column for {', '.join(parts)}; its columns are: {', '.join(there)}")

    def without_label(self) -> "Roles":
        return replace(self, label=None)

    def rows(self) -> list[tuple[str, str]]:
        """(part, columns) for print and report."""
        shown = []
        for part, value in asdict(self).items():
            text = ", ".join(value) if isinstance(value, tuple | list) else value
            shown.append((part.replace("_", " "), text or "-"))
        return shown

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> "Roles":
        """The inverse of :meth:`to_json`; unknown parts and wrong types raise a DataError."""
        known = set(Roles.__dataclass_fields__)
        wrong = sorted(set(content) - known)
        if wrong:
            raise DataError(f"unknown role {', '.join(wrong)}; roles are {', '.join(sorted(known))}")
        for part in _REQUIRED:
            if not isinstance(content.get(part), str):
                raise DataError(f'the roles name no column for {part}: add "{part}": "<column>"')
        lists = {"categories", "numbers", "ignored", "places"}
        made: dict[str, Any] = {k: tuple(v) if k in lists and v is not None else v for k, v in content.items()}
        if made.get("places") is not None and len(made["places"]) != 4:
            raise DataError("places takes four columns: latitude and longitude of home, then of the merchant")
        return Roles(**made)

    def save(self, path: str | Path) -> Path:
        return write_atomically(path, json.dumps(self.to_json(), indent=1) + "\n")

    @staticmethod
    def load(path: str | Path) -> "Roles":
        """Reads a JSON file with the parts above."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f'{path} is not JSON ({error}): expected an object such as {{"time": "..."}}') from None
        if not isinstance(content, dict):
            raise DataError(f'{path} holds a {type(content).__name__}: expected an object such as {{"time": "..."}}')
        return Roles.from_json(content)


def infer_roles(table: pd.DataFrame, **given: Any) -> Roles:
    """Roles from column names and types; ``given`` ones win (``entity=None`` says there is none).

    A column whose name speaks of fraud, scenarios or labels is never an input: it is the label or ignored.

    Raises:
        DataError: no column for the time or the amount.
    """
    names = [str(name) for name in table.columns]
    found: dict[str, Any] = {}
    for part, candidates in _NAMES.items():
        by_lower = {name.lower(): name for name in names}
        found[part] = next((by_lower[c] for c in candidates if c in by_lower), None)
    if found["time"] is None:
        found["time"] = next((n for n in names if pd.api.types.is_datetime64_any_dtype(table[n].dtype)), None)
    found["places"] = next((places for places in _PLACES if set(places) <= set(names)), None)
    found |= given
    for part in _REQUIRED:
        if found[part] is None:
            raise DataError(
                f"no column looks like the {part} of a payment; name it in a roles file "
                f'("{part}": "<column>"). Columns: {", ".join(names)}'
            )
    used = {found[part] for part in _NAMES} | set(found["places"] or ())
    sorts: dict[str, list[str]] = {"categories": [], "numbers": [], "ignored": []}
    for name in names:
        if name not in used:
            sorts[_sort(name, table[name])].append(name)
    for part in ("categories", "numbers"):
        if part in given:
            sorts[part] = list(given[part])
    taken = {*sorts["categories"], *sorts["numbers"]}
    sorts["ignored"] = [n for n in names if n not in used and n not in taken]
    roles = Roles.from_json({**found, **sorts})
    roles.check(names, label=True)
    return roles


def _sort(name: str, column: pd.Series) -> str:
    """Which list a further column belongs to."""
    lower = name.lower()
    if any(word in lower for word in ("fraud", "scenario", "label", "unnamed")):
        return "ignored"
    if pd.api.types.is_bool_dtype(column.dtype):
        return "categories"
    if pd.api.types.is_numeric_dtype(column.dtype):
        return "numbers"
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return "ignored"
    sample = column.dropna().head(10_000)
    numeric = pd.to_numeric(sample.astype(str), errors="coerce").notna().mean() if len(sample) else 0.0
    if numeric > 0.95:
        return "numbers"
    different = sample.astype(str).nunique()
    free_text = different > min(_MOST_VALUES, max(50, 0.5 * len(sample)))
    return "ignored" if free_text or not np.isfinite(different) else "categories"
