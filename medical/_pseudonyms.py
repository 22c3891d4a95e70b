"""Stand-ins for what identifies a person: the same for the same person and site key, unlinkable without the key."""

import hashlib
import hmac
import uuid
from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from unlabeled.core.errors import DataError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SHORTEST_KEY = 16
# Dates move back by 1 to about 10 years' days, so that no shifted date lies in the future.
_MOST_DAYS = 3650


class Pseudonyms:
    """HMAC-SHA256 of what is to be hidden under the site key, one stream a purpose.

    Args:
        key: at least 16 secret bytes.

    Raises:
        DataError: the key is shorter.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise DataError(
                f"a site key has at least {SHORTEST_KEY} secret bytes, got {len(key)}: "
                "let unlabeled.medical.deidentify.site_key make one"
            )
        self._key = bytes(key)

    def __repr__(self) -> str:
        # The key must not reach a log.
        return "Pseudonyms(key=...)"

    def patient(self, identity: str) -> str:
        return "P-" + self._digest("patient", identity).hex()[:16].upper()

    def accession(self, number: str) -> str:
        """16 characters, what the value representation SH holds."""
        return "A-" + self._digest("accession", number).hex()[:14].upper()

    def institution(self, name: str) -> str:
        """Empty for an empty name; case and blanks tell no two apart."""
        folded = " ".join(name.split()).casefold()
        return f"S-{self.digest('institution', folded)[:8].upper()}" if folded else ""

    def uid(self, uid: str) -> str:
        """A UUID-derived UID (PS3.5 B.2): "2.25." and 128 bits as a decimal number."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=4).int}"

    def days(self, identity: str) -> int:
        """How many days the dates of this person move back."""
        return 1 + int.from_bytes(self._digest("days", identity)[:8]) % _MOST_DAYS

    def digest(self, purpose: str, value: str) -> str:
        """16 hexadecimal digits that stand for a value in one place (``purpose``), such as the name of a file."""
        return self._digest(purpose, value).hex()[:16]

    def _digest(self, purpose: str, value: str) -> bytes:
        return hmac.digest(self._key, f"{purpose}\0{value}".encode("utf-8", "surrogatepass"), hashlib.sha256)


def text(file: "Dataset | Mapping[str, object]", keyword: str) -> str:
    """A value as text without outer blanks; empty where it is missing, several or unreadable."""
    value = value_of(file, keyword)
    return "" if value is None else str(value).strip(" \0\t\r\n")


def value_of(file: "Dataset | Mapping[str, object]", keyword: str) -> Any:
    """A value, or ``None`` where it is missing or cannot be read: what is broken is not kept."""
    try:
        return file.get(keyword)
    except Exception:  # pydicom raises most builtin errors on values that break their type
        return None


def identity(file: "Dataset") -> str | None:
    """Issuer and patient id as one text; ``None`` where the file names nobody.

    The same in every run, whatever else lies beside the file. Whether a file without an issuer is of the person whom
    others name with one can be told only beside those: :func:`unlabeled.medical._people.across_issuers`.
    """
    patient, issuer = text(file, "PatientID"), text(file, "IssuerOfPatientID")
    if not patient:
        return None
    return f"{issuer}\\{patient}" if issuer else patient


def parse_date(value: object) -> date | None:
    """YYYYMMDD, with or without dots, dashes or a time after it; ``None`` for anything else."""
    digits = str(value).strip(" \0").replace(".", "").replace("-", "")[:8]
    if len(digits) != 8 or not digits.isascii() or not digits.isdigit():
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def shifted(day: date | None, days: int) -> date | None:
    """The day ``days`` earlier; ``None`` for none, or where the calendar does not reach that far."""
    try:
        return None if day is None else day - timedelta(days=days)
    except OverflowError:
        return None


# What no age is above, and by how much PatientAge and the dates may differ: more, and one of them is a placeholder.
_OLDEST, _APART = 130, 2


def years_of(file: "Dataset") -> int | None:
    """Completed years at the examination, by PatientAge or by the dates of birth and study; ``None`` where neither can
    be used (``000Y`` and what is above 130 years stand for nothing), or they contradict each other."""
    told, counted = _written_years(text(file, "PatientAge")), _counted_years(file)
    if told is None or counted is None:
        return counted if told is None else told
    return told if abs(told - counted) <= _APART else None


def _written_years(written: str) -> int | None:
    number, unit = (written[:-1], written[-1]) if written[-1:] in ("Y", "M", "W", "D") else (written, "Y")
    if not (number.isascii() and number.isdigit() and len(number) <= 3) or (unit == "Y" and not int(number)):
        return None
    years = int(int(number) / {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}[unit])
    return years if years <= _OLDEST else None


def _counted_years(file: "Dataset") -> int | None:
    born, seen = parse_date(text(file, "PatientBirthDate")), parse_date(text(file, "StudyDate"))
    if born is None or seen is None or seen < born:
        return None
    years = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    return years if years <= _OLDEST else None
