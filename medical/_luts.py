"""What stored values are meant to show: modality LUT or rescale, then VOI LUT or window (PS3.3 C.11.1, C.11.2); which
of them are padding.

Looked up here rather than by pydicom, whose 3.0.2 keeps a VOI LUT's index in as few bits as its entries have (a table
of 8-bit entries then repeats every 256 values), knows neither packed entries nor depths such as 9 or a modality LUT's
12, and turns a window upside down where the rescale slope is negative.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlabeled.medical._pseudonyms import text, value_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MODALITY, VOI = "ModalityLUTSequence", "VOILUTSequence"
_WORDS = 1 << 16


class Unusable(Exception):
    """A window or table that cannot be applied; the message has terms of the standard and numbers only."""


class Table(NamedTuple):
    """``entries`` (n,) from 0 to 65535; ``first``: the input that the first of them is for, as the file has it, which
    may be in the other one of US and SS (:meth:`look_up` knows); ``bits`` of an entry."""

    first: int
    bits: int
    entries: NDArray[np.int64]

    def look_up(self, inputs: NDArray[Any], *, low: float, high: float) -> NDArray[np.float64]:
        """Inputs outside of the table have its first or last entry; they are within ``low`` to ``high``."""
        first = self.first % _WORDS
        # SS where inputs may be negative, else US (C.11.1.1, C.11.2.1.1); but a first value above all that can come
        # would leave the table unused, so it is taken as the negative one that it also spells.
        if first >= _WORDS // 2 and (low < 0 or first > high):
            first -= _WORDS
        places = np.clip(np.rint(inputs).astype(np.int64) - first, 0, len(self.entries) - 1)
        return self.entries[places].astype(np.float64)


def tables(file: "Dataset", keyword: str) -> list[Table]:
    """The tables of a sequence; an item without descriptor or data says nothing.

    Raises:
        Unusable: one does not fit its descriptor.
    """
    found = value_of(file, keyword)
    if _empty(found):
        return []
    try:
        order = "<" if _little_endian(file) else ">"
        told = [(item.get("LUTDescriptor"), item.get("LUTData")) for item in found]
        return [_table(described, data, order) for described, data in told if not (_empty(described) or _empty(data))]
    except Exception:  # tables come as people wrote them
        raise Unusable("a look-up table does not fit its descriptor") from None


def _table(described: Any, data: Any, order: str) -> Table:
    count, first, bits = (int(part) for part in described)
    count = count % _WORDS or _WORDS
    if isinstance(data, bytes):
        words = np.frombuffer(data + b"\0" * (len(data) % 2), dtype=f"{order}u2")
        # Entries of 8 bits may fill half a word each, or a whole one; the first of a word is its lower half.
        packed = bits == 8 and len(words) < count
        values = (words.astype("<u2").view("u1") if packed else words).astype(np.int64)
    else:
        values = np.atleast_1d(np.asarray(data, dtype=np.int64))
    values = values[:count]
    if len(values) < count or not 8 <= bits <= 16 or values.min() < 0 or values.max() >= _WORDS:
        raise ValueError
    return Table(first, bits, values)


def shown(file: "Dataset", stored: NDArray[Any]) -> NDArray[np.float64]:
    """Stored values after both steps, up to a scale: a window gives 0 to 1.

    Raises:
        Unusable: a table or window that is there cannot be applied.
    """
    values, low, high = _modality(file, stored)
    found = tables(file, VOI)
    if found:
        return found[0].look_up(values, low=low, high=high)
    window = _window(file)
    return values if window is None else _windowed(values, *window)


def has_window(file: "Dataset") -> bool:
    """Whether the file says how it is to be shown: tags that are there and empty do not.

    Raises:
        Unusable: what it says cannot be applied.
    """
    return bool(tables(file, VOI)) or _window(file) is not None


def _modality(file: "Dataset", stored: NDArray[Any]) -> tuple[NDArray[np.float64], float, float]:
    """Values after the first step, and the lowest and highest that it can give."""
    bits, signed = int(value_of(file, "BitsStored") or 16), int(value_of(file, "PixelRepresentation") or 0)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    found = tables(file, MODALITY)
    if found:
        return found[0].look_up(stored, low=low, high=high), 0, _WORDS - 1
    values = stored.astype(np.float64)
    slope, intercept = value_of(file, "RescaleSlope"), value_of(file, "RescaleIntercept")
    if _empty(slope) or _empty(intercept):
        return values, low, high
    slope, intercept = float(slope), float(intercept)
    if not np.isfinite([slope, intercept]).all():
        raise Unusable("the rescale slope or intercept is not finite")
    ends = low * slope + intercept, high * slope + intercept
    return values * slope + intercept, min(ends), max(ends)


def _window(file: "Dataset") -> tuple[float, float, str] | None:
    """Centre, width and function of the first window, if there is one."""
    pairs = zip(*(_several(value_of(file, keyword)) for keyword in ("WindowCenter", "WindowWidth")), strict=False)
    said = next((pair for pair in pairs if not (_empty(pair[0]) or _empty(pair[1]))), None)
    if said is None:
        return None
    center, width = (float(part) for part in said)
    function = text(file, "VOILUTFunction").upper() or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise Unusable("VOILUTFunction is none of the standard's")
    if not np.isfinite([center, width]).all():
        raise Unusable("the window's centre or width is not finite")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise Unusable(f"WindowWidth is {width:g}, which {function} does not allow")
    return center, width, function


def _windowed(values: NDArray[np.float64], center: float, width: float, function: str) -> NDArray[np.float64]:
    """C.11.2.1.2 and C.11.2.1.3, from 0 to 1."""
    if function == "SIGMOID":
        # 1 / (1 + exp(-4 (x - c) / w)), written so that nothing overflows.
        return np.asarray(0.5 + 0.5 * np.tanh(2 * (values - center) / width))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1
    if not width:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def padding_range(file: "Dataset") -> tuple[int, int] | None:
    """Lowest and highest stored value that only pads the film to a rectangle (PS3.3 C.7.5.1.1.2), if the file says so.

    PixelPaddingValue and PixelPaddingRangeLimit are US or SS as the pixels are, and are read so even where the file has
    them in the other one. A limit alone says nothing.
    """
    value, limit = (value_of(file, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if _empty(value):
        return None
    try:
        ends = [int(end) % _WORDS for end in (value, limit) if not _empty(end)]
        signed = int(value_of(file, "PixelRepresentation") or 0)
    except (TypeError, ValueError):
        return None
    if signed:
        ends = [end - _WORDS if end >= _WORDS // 2 else end for end in ends]
    return min(ends), max(ends)


def padding(file: "Dataset", stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Which stored values are padding."""
    ends = padding_range(file)
    if ends is None or stored.dtype.kind not in "iu":
        return np.zeros(stored.shape, dtype=bool)
    return np.asarray((stored >= ends[0]) & (stored <= ends[1]))


def _little_endian(file: "Dataset") -> bool:
    """As it was read; a data set made in memory as its transfer syntax says."""
    little = getattr(file, "original_encoding", (None, None))[1]
    if little is None:
        syntax = getattr(getattr(file, "file_meta", None), "TransferSyntaxUID", None)
        little = getattr(syntax, "is_little_endian", True)
    return bool(little)


def _several(value: Any) -> list[Any]:
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str) else [value]


def _empty(value: Any) -> bool:
    return value is None or (hasattr(value, "__len__") and not len(value))
