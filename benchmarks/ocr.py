"""How much text drawn away from a film's borders is painted over, and how often a film without text is touched.

    python benchmarks/ocr.py

Needs the extra ``ocr`` and the program tesseract. Names, dates and numbers are drawn once into each film, at a random
place between a fifth of the rest of the sides from the upper left corner on and where they just fit, in a random size
and as bright or as dark as a random share of the film's range away from what is below. "Covered": at least 90 % of the
drawing's contrast lies in what the search paints over; of the others something may be legible. Films: simulated ones of
several sizes; real children's (224 px, enlarged to 896, because letters of 12 pixels fit no smaller one), as they
are, after JPEG of quality 60 and after a Gaussian blur of one pixel. The same films without text tell how often nothing
is taken for text. The search (``unlabeled.medical.intake``, option ``--ocr``) was built on other
seeds; some of these children's films may have been among those that it was tried on.

Rates with Wilson's 95 % interval over films (each of another patient). Data that is not there is left out.
"""

import argparse
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.intervals import wilson
from unlabeled.medical import simulate
from unlabeled.medical.intake._ocr import TextReader

HERE = Path(__file__).parent
CHILDREN = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
SIDES, ENLARGED, COVERED = (400, 800, 1600, 2500), 896, 0.9
FIRST_SEED = 9000  # of pictures and of text; no other use of the simulator starts here
SURNAMES = ("MARTINEZ", "Kowalska", "O'BRIEN", "Lindqvist", "NGUYEN", "Schäfer", "DUBOIS", "Okafor")
GIVEN = ("Anna", "JUAN", "Li Wei", "Grace", "PIERRE", "Ole", "Fatima", "Ivan")
Film = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=60, help="of each kind")
    parser.add_argument("--data", type=Path, default=CHILDREN)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    assert shutil.which("tesseract"), "the program tesseract is not installed"
    reader = TextReader()
    rows = [measure(reader, f"simulated, {side} px", simulated(side, given.films), as_it_is) for side in SIDES]
    if given.data.exists():
        for name, spoil in SPOILT.items():
            rows.append(measure(reader, f"children's, {name}", children(given.data, given.films), spoil))
    write(given, rows)


def simulated(side: int, count: int) -> Iterator[Film]:
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        rng = np.random.default_rng(seed)
        film = simulate.draw_radiograph(simulate.draw_anatomy(rng), pneumonia=bool(seed % 2), rng=rng, size=side)
        yield np.clip(film / film.max(), 0, 1).astype(np.float32)


def children(table: Path, count: int) -> Iterator[Film]:
    """Real films of patients of whom one film is taken each, in the order of the table from its middle on."""
    rows = pq.read_table(table, columns=["patient_id", "jpeg"]).to_pylist()
    seen: set[str] = set()
    for row in rows[len(rows) // 2 :]:
        if len(seen) == count:
            return
        if row["patient_id"] not in seen:
            seen.add(row["patient_id"])
            film = Image.open(io.BytesIO(row["jpeg"])).convert("L").resize((ENLARGED, ENLARGED))
            yield (np.asarray(film) / 255).astype(np.float32)


def as_it_is(film: Film) -> Film:
    return film


def through_jpeg(film: Film) -> Film:
    held = io.BytesIO()
    _grey(film).save(held, "JPEG", quality=60)
    return (np.asarray(Image.open(held)) / 255).astype(np.float32)


def blurred(film: Film) -> Film:
    return (np.asarray(_grey(film).filter(ImageFilter.GaussianBlur(1))) / 255).astype(np.float32)


SPOILT: dict[str, Callable[[Film], Film]] = {
    "as drawn": as_it_is, "JPEG of quality 60": through_jpeg, "blurred by a pixel": blurred,
}  # fmt: skip


def _grey(film: Film) -> Image.Image:
    return Image.fromarray(np.rint(film * 255).astype(np.uint8))


def measure(reader: TextReader, kind: str, films: Iterator[Film], spoil: Callable[[Film], Film]) -> dict[str, object]:
    shares, touched = [], []
    for number, clean in enumerate(films):
        marked = drawn(clean, np.random.default_rng(FIRST_SEED + number))
        contrast = np.abs(marked - clean)
        shares.append(float(contrast[reader.cover(spoil(marked))].sum() / contrast.sum()))
        touched.append(float(reader.cover(spoil(clean)).mean()))
    print(kind, sum(share >= COVERED for share in shares), sum(part > 0 for part in touched), len(shares), flush=True)
    return {"films": kind, "covered": shares, "touched without text": touched}


def drawn(film: Film, rng: np.random.Generator) -> Film:
    """With one line of text, which differs from what is below it by at least a quarter of the range."""
    font = ImageFont.load_default(max(12, round(film.shape[0] * rng.uniform(1 / 40, 1 / 16))))
    text = said(rng)
    wide, high = (int(side) + 2 for side in font.getbbox(text)[2:])
    top, left = (
        round(rng.uniform(0.2, 1) * (side - size)) for side, size in zip(film.shape, (high, wide), strict=True)
    )
    below = float(film[max(top, 0) : top + high, max(left, 0) : left + wide].mean())
    away = rng.uniform(0.25, 0.6)
    page = Image.fromarray(film)
    ImageDraw.Draw(page).text((left, top), text, fill=min(below + away, 1) if below < 0.5 else below - away, font=font)
    return np.array(page)


def said(rng: np.random.Generator) -> str:
    kind = rng.integers(3)
    if kind == 0:
        return f"{rng.choice(SURNAMES)} {rng.choice(GIVEN)}"
    if kind == 1:
        return f"{rng.integers(1, 29):02d}.{rng.integers(1, 13):02d}.{rng.integers(1930, 2020)}"
    return f"ID {rng.integers(10**6, 10**8)}"


def write(given: argparse.Namespace, rows: list[dict[str, object]]) -> None:
    lines = [
        "# Text away from the borders", "", f"`python benchmarks/ocr.py --films {given.films}`", "",
        *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(), "",
        f"Hardware: {', '.join(map(str, describe_hardware().values()))}.", "",
        "| films | drawn text covered | films without text that were touched | the most that was touched of one |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        shares, touched = np.array(row["covered"]), np.array(row["touched without text"])
        lines.append(f"| {row['films']} | {rate(shares >= COVERED)} | {rate(touched > 0)} | {touched.max():.1%} |")
    facts = {"films": given.films, "rows": rows, "hardware": describe_hardware()}
    write_atomically(given.out / "ocr.md", "\n".join(lines) + "\n")
    write_atomically(given.out / "ocr.json", json.dumps(facts, indent=1) + "\n")
    print("\n".join(lines))


def rate(found: NDArray[np.bool_]) -> str:
    low, high = wilson(float(found.mean()), len(found), 0.95)
    return f"{found.sum()} of {len(found)} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main()
