"""What a recording's numbers are in, where its file says so; it is never guessed.

One name for each spelling of the units of vibration, and for such others as tell a column of units from one of machines
(``unit`` is what some call a machine).
"""

from collections.abc import Iterable

from unlabeled.core.errors import DataError

NAMES = ("unit", "units")
_SPELLINGS = {
    "g": ("g", "gn", "g_n", "grav"),
    "m/s2": ("m/s2", "m/s^2", "m/s²", "m/s**2", "ms-2", "m s-2", "m·s-2", "m/s/s"),
    "mm/s": ("mm/s", "mm/sec", "mms-1", "mm s-1", "mm·s-1"),
    "m/s": ("m/s", "m s-1"),
    "in/s": ("in/s", "ips"),
    "um": ("um", "µm", "μm", "micron", "microns"),
}
# No single letters but g: "unit A" is a machine.
_OTHERS = (
    *("mm", "mv", "ma", "°c", "degc", "°f", "degf", "bar", "mbar", "pa", "kpa", "mpa", "hz", "khz", "rpm", "1/min"),
    *("kw", "nm", "kn", "%", "db"),
)
_NAMED = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def named(said: object) -> str:
    """A unit by its one name; another one, or nothing, as it is said."""
    text = str(said).strip()
    return _NAMED.get(text.lower(), text)


def is_unit(said: object) -> bool:
    text = str(said).strip().lower()
    return text in _NAMED or text in _OTHERS


def common(said: Iterable[object], *, source: str) -> str:
    """The one unit that is said, empty where nothing is.

    Raises:
        DataError: there are several.
    """
    found = sorted({named(one) for one in said if one is not None and one == one} - {""})  # NaN is not itself
    if len(found) > 1:
        raise DataError(f"{source}: its values are in {' and in '.join(found)}: convert them to one unit")
    return found[0] if found else ""
