"""What lies in a folder, to its depths."""

import os
from collections.abc import Iterator
from pathlib import Path

from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical.intake._film import Found, file_key


def walk(root: Path, stand_in: Pseudonyms) -> list[Found]:
    """Every file below ``root``; what cannot be followed or listed stands there too, with its reason, so that nothing
    is passed over in silence. Links to files are followed, links to folders are not.

    In the order of their keyed digests: rows in the order of names would tell whose name stands between which others.
    """
    return sorted(listed(root), key=lambda found: file_key(stand_in, found.path))


def listed(root: Path, below: str = "") -> Iterator[Found]:
    """As :func:`walk`, as the system lists it; of pipes and devices nothing is said yet."""
    try:
        with os.scandir(root / below) as entries:
            inside = list(entries)
    except OSError:
        yield Found(below or ".", reason="unreadable folder")
        return
    for entry in inside:
        path = f"{below}/{entry.name}" if below else entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from listed(root, path)
            elif entry.is_dir():
                yield Found(path, reason="link to a folder")
            else:
                status = entry.stat()
                yield Found(path, status.st_size, status.st_mtime_ns)
        except OSError:  # a link that leads nowhere, say
            yield Found(path, reason="unreadable")
