"""Reads a folder of files of which two end the process that reads them: ``crash_script.py FOLDER``."""

import json
import os
import sys
from pathlib import Path

from unlabeled.medical._pseudonyms import Pseudonyms
from unlabeled.medical.intake._film import Film, Found, Reader
from unlabeled.medical.intake._walk import walk
from unlabeled.medical.intake._workers import read_all

DEADLY = ("SIM-1-00007", "SIM-1-00023")
KEY = bytes(32)


class Fragile(Reader):
    def __call__(self, found: Found) -> Film:
        if found.path in DEADLY:
            os._exit(9)
        return super().__call__(found)


def run(folder: Path) -> None:
    files = walk(folder, Pseudonyms(KEY))
    parts = [(number, files[number * 8 : number * 8 + 8]) for number in range(5)]
    batches = list(read_all(Fragile(folder, KEY, size=32), parts, workers=2))
    assert [batch.number for batch in batches] == [number for number, _ in parts]
    films = [film for batch in batches for film in batch.films]
    crashed = [found.path for found, film in zip(files, films, strict=True) if film.finding.reason == "crash"]
    read = sum(film.picture is not None for film in films)
    print(json.dumps({"crash": sorted(crashed), "": read}))


if __name__ == "__main__":
    run(Path(sys.argv[1]) / "hospital")
