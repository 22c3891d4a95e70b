"""One reading as JSON, as MQTT and Kafka carry it."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from unlabeled.core.errors import DataError
from unlabeled.sensors import units
from unlabeled.sensors.recording import Recording


def recording_of(payload: bytes) -> Recording:
    """One reading as JSON: ``asset``, ``time`` (ISO 8601; without a zone: UTC), and either ``fs`` (Hz) and ``values``
    (a list for each axis; ``axes`` names them) or ``indicators`` (numbers by name); ``operating`` says by name how the
    machine is run, ``unit`` what the values are in.

    Raises:
        DataError: what is missing or of another kind.
    """
    try:
        said = json.loads(payload)
    except (ValueError, RecursionError):
        raise DataError("the message is no JSON") from None
    if not isinstance(said, dict):
        raise DataError("the message is no JSON object")
    asset, indicators = said.get("asset"), said.get("indicators")
    if not isinstance(asset, str) or not asset.strip() or not _is_text(asset):
        raise DataError("the message does not name its 'asset'")
    if isinstance(indicators, dict) and indicators:
        names, fs = tuple(indicators), None
        values = _numbers(list(indicators.values()), "indicators")[None]
    else:
        signal = said.get("values")
        if not isinstance(signal, list) or not signal or not all(isinstance(axis, list) for axis in signal):
            raise DataError("the message holds neither 'values', a list for each axis, nor 'indicators' by name")
        if len({len(axis) for axis in signal}) > 1:
            raise DataError("the axes in 'values' are of different lengths")
        fs = said.get("fs")
        if not isinstance(fs, int | float) or isinstance(fs, bool) or not 0 < fs < 1e12:
            raise DataError("the message does not say its sampling rate: 'fs', in Hz")
        axes = said.get("axes") or list(range(1, len(signal) + 1))
        if not isinstance(axes, list):
            raise DataError("'axes' is no list of names")
        names = tuple(str(axis) for axis in axes)
        if len(names) != len(signal):
            raise DataError(f"{len(names)} names in 'axes' for {len(signal)} lists in 'values'")
        values = np.stack([_numbers(axis, "values") for axis in signal], axis=1)[None]
    conditions = said.get("operating") or {}
    if not isinstance(conditions, dict):
        raise DataError("'operating' is no object of numbers by name")
    unit = said.get("unit") or ""
    if not isinstance(unit, str):
        raise DataError("'unit' is no text")
    return Recording(
        asset=asset,
        conditions=_numbers(list(conditions.values()), "operating").astype(np.float64)[None] if conditions else None,
        condition_names=tuple(conditions),
        values=values,
        names=names,
        hours=np.zeros(1),
        fs=fs,
        unit=units.named(unit),
        clock=np.array([_time(said.get("time"))]),
        running=np.array([said.get("running") is not False]),
        flaws=np.full(1, "", dtype="<U120"),
    )


def _numbers(values: Sequence[Any], name: str) -> np.ndarray:
    if not all(isinstance(value, int | float) or value is None for value in values):
        raise DataError(f"not all of '{name}' are numbers")
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64).astype(np.float32)
    except OverflowError:
        raise DataError(f"a number in '{name}' is too large") from None


def _is_text(text: str) -> bool:
    """Half a character, which JSON can write, is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(text: Any) -> np.datetime64:
    try:
        stamp = datetime.fromisoformat(text)
        if stamp.tzinfo is not None:
            stamp = stamp.astimezone(UTC).replace(tzinfo=None)
    except (TypeError, ValueError, OverflowError):
        raise DataError("the message's 'time' is no date such as 2024-03-01T06:00:00Z") from None
    if not 1970 <= stamp.year < 2262:  # what nanoseconds can count
        raise DataError("the message's 'time' is before 1970 or after 2261")
    return np.datetime64(stamp, "ns")
