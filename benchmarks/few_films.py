"""A hospital with few films: what the pretraining is worth there, and whether the probe should vote beside the network.

    python benchmarks/few_films.py --cache FOLDER

Data (not part of this repository): kermany224 at 64 px. Of its training and validation patients a draw takes 600 by
chance (an eighth, about 850 films): all of their films pretrain a network, 100 of them teach it pneumonia and 100 films
of other patients among the 600 decide. Every fourth film of the other training and validation patients judges (the same
hospital), and the official test part (another one). Counts and seeds were fixed before anything was looked at, and five
draws, of which the time sufficed for three; a rule would be chosen by the same hospital's patients alone.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tables import interval

from unlabeled.core.checkpoints import write_atomically
from unlabeled.core.evaluation import roc_auc
from unlabeled.core.hardware import describe_hardware
from unlabeled.core.progress import quiet
from unlabeled.medical import PneumoniaModel, read_images
from unlabeled.medical import _network as network
from unlabeled.medical._finetuning import Labelled
from unlabeled.medical.baselines import PixelRegression, from_scratch
from unlabeled.medical.images import ImageSet
from unlabeled.medical.splits import first_labels

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/kermany224/kermany_cxr_224.parquet"
PATIENTS, LABELS, DECIDING = 600, 100, 100
EPOCHS = (10, 50)
SCRATCH, PIXELS = "same network from scratch", "PCA-100 + LogReg"
JUDGED = ("held out", "same hospital", "official test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--draws", type=int, default=3)
    given = parser.parse_args()
    quiet(True)
    torch.set_num_threads(1)
    given.cache.mkdir(parents=True, exist_ok=True)
    images = replace(read_images(given.data, size=64), order=None)
    found = [kept(images, draw, given.cache) for draw in range(given.draws)]
    write(given, found)


def kept(images: ImageSet, draw: int, cache: Path) -> dict[str, dict[str, float]]:
    path = cache / f"draw-{draw}.json"
    if not path.exists():
        began = time.monotonic()
        path.write_text(json.dumps(judged(images, draw)))
        print(f"{time.strftime('%H:%M:%S')} draw {draw} {time.monotonic() - began:.0f} s", flush=True)
    values: dict[str, dict[str, float]] = json.loads(path.read_text())
    return values


def judged(images: ImageSet, draw: int) -> dict[str, dict[str, float]]:
    """AUROC of each method on each part."""
    assert images.splits is not None
    pool, test = images.take(images.splits != "test"), images.take(images.splits == "test")
    names = np.unique(pool.patients)
    mine = np.random.default_rng(draw).permutation(names)[:PATIENTS]
    films = pool.take(np.isin(pool.patients, mine))
    labelled = first_labels(films, LABELS + DECIDING, seed=draw)
    deciding = np.unique(labelled.patients)[::2]
    train = labelled.take(~np.isin(labelled.patients, deciding))
    held = labelled.take(np.isin(labelled.patients, deciding))
    others = pool.take(np.flatnonzero(~np.isin(pool.patients, mine))[::4])
    parts = dict(zip(JUDGED, (held, others, test), strict=True))
    unlabelled = films.take(~np.isin(films.patients, deciding))
    assert train.labels is not None
    assert held.labels is not None
    data, validation = Labelled(train.pixels, train.labels), (held.pixels, held.labels)
    said = {}
    for epochs in EPOCHS:
        model = PneumoniaModel(framing=images.framing, pretrain_epochs=epochs, random_state=draw)
        model.pretrain(unlabelled)
        model.finetune(train, train.labels, validation=(held, held.labels), unlabelled=unlabelled)
        for name, part in parts.items():
            alone, probe = separately(model, part.pixels)
            said[f"ours, {epochs} epochs: network alone", name] = alone
            said[f"ours, {epochs} epochs: probe alone", name] = probe
            said[f"ours, {epochs} epochs: both", name] = (alone + probe) / 2
    baselines = {
        SCRATCH: from_scratch(model, data, groups=train.patients, validation=validation),
        PIXELS: PixelRegression(seed=draw),
    }
    baselines[PIXELS].fit(unlabelled.pixels, data, groups=train.patients, validation=validation)
    for method, baseline in baselines.items():
        said |= {(method, name): baseline._logits(part.pixels) for name, part in parts.items()}
    found: dict[str, dict[str, float]] = {}
    for (method, name), odds in said.items():
        found.setdefault(method, {})[name] = roc_auc(parts[name].labels, odds)
    np.savez(
        f"/tmp/ff/{draw}.npz",
        **{f"{m}|{n}": v for (m, n), v in said.items()},
        **{f"label|{n}": p.labels for n, p in parts.items()},
    )
    return found


def write(given: argparse.Namespace, found: Sequence[dict[str, dict[str, float]]]) -> None:
    lines = [
        "# A hospital with few films",
        "",
        "`python benchmarks/few_films.py --cache FOLDER`",
        "",
        (__doc__ or "").split("\n\n", 2)[2].replace("\n", " ").strip(),
        "",
        f"AUROC, mean over {len(found)} draws with Student's 95 % interval; what the probe's vote gives is paired by "
        f"draw. Hardware: {', '.join(str(value) for value in describe_hardware().values())}.",
        "",
        f"| method | {' | '.join(JUDGED)} |",
        "|---" * (1 + len(JUDGED)) + "|",
    ]
    for method in found[0]:
        cells = [interval([one[method][name] for one in found]) for name in JUDGED]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    for epochs in EPOCHS:
        both, alone = (f"ours, {epochs} epochs: {what}" for what in ("both", "network alone"))
        gains = [interval([one[both][name] - one[alone][name] for one in found], sign="+") for name in JUDGED]
        lines.append(f"| {epochs} epochs: gained by the vote | {' | '.join(gains)} |")
    write_atomically(given.out / "few_films.md", "\n".join(lines) + "\n")
    write_atomically(given.out / "few_films.json", json.dumps(found, indent=0) + "\n")


def separately(model: PneumoniaModel, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log odds that the fine-tuned network and the probe give, (N,) each."""
    (member,) = model.members_
    alone = network.log_odds(member._replace(probe=None), model.module_.backbone, pixels)
    return alone, 2 * network.log_odds(member, model.module_.backbone, pixels) - alone


if __name__ == "__main__":
    main()
