r"""What a file is called in tables and on pages: its path below a folder, so written that any program can print it.

File systems keep names as bytes, and an old one's need not be UTF-8. Python holds such bytes as lone surrogates, which
no file in UTF-8 and no page can. They are written as ``\xe4``, and so are control characters (a line break would end a
row); a backslash that stands before such a thing in the name itself becomes ``\x5c``. Thus every name leads back to one
path, and two paths never become one name. All other names stay as they are.
"""

import re

_ODD = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff]|\\(?=x[0-9a-f]{2})")
_WRITTEN = re.compile(r"\\x([0-9a-f]{2})")
# Python's surrogate of the byte 0x80 is U+DC80.
_SURROGATES, _ASCII = 0xDC00, 0x80


def name_of(path: str) -> str:
    r"""The name of a path with forward slashes.

    >>> name_of("x/f\udce4hre.dcm")
    'x/f\\xe4hre.dcm'
    """
    return _ODD.sub(lambda odd: f"\\x{ord(odd[0]) & 0xFF:02x}", path)


def path_of(name: str) -> str:
    """The path that :func:`name_of` made a name of."""

    def meant(written: re.Match[str]) -> str:
        byte = int(written[1], 16)
        return chr(byte if byte < _ASCII else _SURROGATES + byte)

    return _WRITTEN.sub(meant, name)
