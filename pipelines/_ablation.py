"""A pretraining whose masks choose, beside the same one with random masks: what is the choice worth?"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlabeled.core import tracking
from unlabeled.core.checkpoints import MANIFEST, check_free, load, put_back, write_atomically
from unlabeled.core.errors import CheckpointError, DataError
from unlabeled.core.progress import say
from unlabeled.core.report import OTHERS, OURS, Report, new_figure
from unlabeled.core.training import History

RECORD = "ablation.json"
MEASURES = {
    "watch.effective_rank": "effective rank",
    "watch.deviation": "deviation",
    "watch.nearest_neighbours": "neighbours' accuracy",
    "watch.linear_probe": "linear probe",
}


@dataclass(frozen=True)
class Twin:
    """The pretraining with random masks: its run, its folder, and what happened in each network, by name."""

    run_id: str
    folder: Path
    histories: Mapping[str, History]


def random_twin(masking: str) -> str:
    """The masking that differs from ``masking`` by chance alone: as many patches of the same size take part, and they
    are random."""
    return f"{masking}-random" if masking in ("sparse", "time") else "random"


def check(masking: str, *, hides: bool = True) -> None:
    """Raises a DataError where there is nothing to compare: the task hides nothing, or at random already."""
    if not hides:
        raise DataError("--beside-random compares masks, and this task hides nothing: choose another --task")
    if masking.endswith("random"):
        raise DataError("--beside-random compares with random masks: choose another --masking")


def folder_beside(out: Path) -> Path:
    """Where the pretraining with random masks goes."""
    return out.with_name(f"{out.name}-random-masks")


def check_folders(out: Path, *, beside_random: bool) -> None:
    """Raises a CheckpointError where a model could not be written after the training, and says where one will be
    replaced."""
    check_free(out)
    if (out / MANIFEST).exists():
        say(f"{out} holds a model already, which will be replaced once this one is finished")
    if beside_random:
        check_free(folder_beside(out))


def twin(folder: Path, *, made_of: Mapping[str, Any], train: Callable[[], tuple[str, Mapping[str, History]]]) -> Twin:
    """Trains with random masks, unless an earlier call that was interrupted later on has done so.

    Args:
        folder: that the training writes its model to.
        made_of: settings and data; what is in ``folder`` counts only if it was made of the same.
        train: returns its run and its histories by network.
    """
    described = {name: str(value) for name, value in made_of.items()}
    found = _kept(folder, described)
    if found is not None:
        say(f"the pretraining with random masks is there already: {folder}")
        return found
    say("first with random masks, to compare with")
    run_id, histories = train()
    kept = {
        name: {"curves": history.curves, "seconds": history.seconds, "steps": history.steps}
        for name, history in histories.items()
    }
    write_atomically(folder / RECORD, json.dumps({"made_of": described, "run_id": run_id, "histories": kept}))
    return Twin(run_id, folder, histories)


def _kept(folder: Path, described: Mapping[str, str]) -> Twin | None:
    """The twin in a folder, if it is whole and made of the same.

    Raises:
        DataError: the folder holds a model that was not trained for a comparison.
    """
    put_back(folder)
    if not (folder / MANIFEST).exists():
        return None
    if not (folder / RECORD).exists():
        raise DataError(
            f"{folder} holds another model, and the one with random masks goes there: move it, or change --out"
        )
    try:
        content = json.loads((folder / RECORD).read_text())
        load(folder)
        histories = {name: History.from_saved(history) for name, history in content["histories"].items()}
        kept = Twin(content["run_id"], folder, histories)
        return kept if content["made_of"] == described else None
    except (ValueError, KeyError, TypeError, CheckpointError):  # damaged: trained again
        return None


def show(
    page: Report, run: tracking.Run, ours: Mapping[str, History], beside: Twin, *, masking: str, verdict: str
) -> None:
    """A section of the page, and the twin's curves beside the run's own.

    Args:
        ours: histories of the networks, by the names that the twin's have.
        verdict: how to find out which is better.
    """
    run.tags({"unlabeled.random_masks_run": beside.run_id})
    rows: list[list[object]] = []
    section = page.section("Beside random masks")
    page.sections.insert(1, page.sections.pop())  # above how it was made, and its limits
    for network, history in ours.items():
        other, of = beside.histories[network], f" ({network})" if len(ours) > 1 else ""
        front = f"{network} " if of else ""
        for name, curve in other.curves.items():
            for step, value in curve:
                run.metrics({f"random_masks.{front}{name}": value}, step)
        shown = {name: said for name, said in MEASURES.items() if history.curves.get(name) and other.curves.get(name)}
        rows += [
            [said + of, f"{history.curves[name][-1][1]:.3f}", f"{other.curves[name][-1][1]:.3f}"]
            for name, said in shown.items()
        ]
        rows += [
            [f"steps{of}", history.steps, other.steps],
            [f"minutes{of}", f"{history.seconds / 60:.1f}", f"{other.seconds / 60:.1f}"],
        ]
        if shown:
            figure, axes = new_figure(height=2.6, columns=len(shown))
            for axis, (name, said) in zip([axes] if len(shown) == 1 else axes, shown.items(), strict=True):
                for one, called, colour in ((history, masking, OURS), (other, "random", OTHERS[0])):
                    steps, values = zip(*one.curves[name], strict=True)
                    axis.plot(steps, values, marker=".", color=colour, label=f"masking '{called}'")
                axis.set(xlabel="step", title=said)
            figure.axes[0].legend(frameon=False)
            section.figure(figure, f"The same pretraining{of} with masking '{masking}' and with random masks, by step.")
    section.table(["at the end", f"masking '{masking}'", "random masks"], rows)
    section.note(
        "The losses are not compared: what is hidden decides how hard it is to fill in. A rank says whether rows are "
        f"told apart, not whether by what matters. {verdict} The other model is in {beside.folder.name}."
    )
