"""``unlabeled sensors learn``: a stretch that somebody vouches for becomes normal, without a word about the rest."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unlabeled.core import fingerprint, tracking
from unlabeled.core.errors import DataError
from unlabeled.core.report import Verdict
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines import _sensors_pretraining as pre
from unlabeled.pipelines._sensors_models import print_of
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import report as pages
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.readers import Dates, files_in, of_one, read
from unlabeled.sensors.recording import Recording, joined
from unlabeled.sensors.stream import UNJUDGED
from unlabeled.sensors.vouched import Vouched, learn


class Stretch(NamedTuple):
    """Which readings somebody vouches for.

    Attributes:
        since, until: dates, or hours after the first snapshot of the only file; both belong to it.
        asset: the machine, where the files tell of several.
        all_of: the machine that all files are of, whatever they say, as for a watched folder.
    """

    since: str
    until: str | None = None
    asset: str | None = None
    all_of: str | None = None


def learn_stretch(
    inputs: Sequence[Path],
    *,
    model: Path,
    out: Path,
    stretch: Stretch,
    anew: bool = False,
    beyond_too: bool = False,
    fs: float | None = None,
    every: float | None = None,
    signal: Sequence[str] = (),
    dates: Dates | None = None,
) -> Outcome:
    """Writes ``out``/<machine>, a model that knows the stretch too; with ``anew``, that knows nothing else.

    Args:
        inputs: files of one machine, in any order, or folders of them.
        model: folder that ``sensors fit`` wrote; may be ``out``.
        beyond_too: learn what the model finds wrong as well (:func:`~unlabeled.sensors.vouched.learn`).

    Raises:
        DataError: no such stretch, files that do not belong together, or one that is refused.
    """
    left_out: list[str] = []
    parts = _read(inputs, model, stretch, left_out, fs=fs, every=every, signal=signal, dates=dates)
    recording = joined(parts)
    folder = files.model_of(recording.asset, model)
    monitor = MachineMonitor.load(folder)
    if monitor.asset_ != recording.asset and not stretch.all_of:
        raise DataError(
            f"the model in {folder} is of {monitor.asset_}, the readings of {recording.asset}: name the machine's own "
            f"model, or say --all-of {monitor.asset_} if they are of it"
        )
    word = Vouched(
        since="", until="", snapshots=0, learnt=0, replaced=anew, beyond=0,
        files=tuple(dict.fromkeys(Path(part.source).name for part in parts)),
        data=fingerprint.of_array(recording.values), model=print_of(folder),
        at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    learnt = learn(monitor, recording, word=word, anew=anew, beyond_too=beyond_too)
    word = learnt.vouched_[-1]
    table = learnt.score(recording)
    path = learnt.save(out / files.folder_name(recording.asset), pretraining_run=monitor.pretraining_run_)
    words = _words(recording, word, learnt)
    told = {name: value for name, value in vars(word).items() if name not in ("files", "gain")}
    parent = monitor.pretraining_run_
    with tracking.run(pre.EXPERIMENT, f"learn {recording.asset}", params=told, parent=parent) as run:
        run.tags({**pre.prints([recording], [len(recording)]), "files": ", ".join(word.files)[:5000]})
        run.metrics({"threshold": learnt.threshold_, "gain": word.gain, "learnt": word.learnt, "beyond": word.beyond})
        run.curve("score", table.loc[~table["state"].isin(UNJUDGED), "score"].to_list())
        run.model(path)
        page = pages.build(
            title="What was learnt as normal",
            subtitle=recording.asset,
            verdict=Verdict(words[0], "bad" if word.beyond or table["alarm"].any() else "good"),
            facts={"snapshots": word.snapshots, "thereof learnt": word.learnt, "threshold": f"{learnt.threshold_:.3g}",
                   "stretches learnt so far": len(learnt.vouched_)},
            machines=[pages.Machine(recording, learnt, table, normal_rows=len(recording) if anew else 0)],
            run_id=run.run_id,
        )  # fmt: skip
        written = {"model": path, "report": page.write(out / f"learnt-{files.folder_name(recording.asset)}.html")}
        run.artifact(written["report"])
    return Outcome(
        headline=words[0], lines=[*words[1:], *left_out], files=written, run_id=run.run_id,
        details={"learnt": {**vars(word), "files": list(word.files)}, "left_out": left_out},
    )  # fmt: skip


def _read(
    inputs: Sequence[Path],
    model: Path,
    stretch: Stretch,
    left_out: list[str],
    *,
    fs: float | None,
    every: float | None,
    signal: Sequence[str],
    dates: Dates | None,
) -> list[Recording]:
    """What each file has of the stretch, of one machine."""
    name = stretch.all_of or stretch.asset
    operating = files.operating_of(model if name is None else files.model_of(name, model))
    found: list[Recording] = []
    for path in files_in(inputs):
        try:
            found += read(path, fs=fs, every=every, signal=signal, operating=operating, dates=dates)
        except DataError as error:  # a folder that a job watches may hold what it refused
            left_out.append(f"{path.name} is left out: {error}")
    if stretch.all_of is not None:
        found = of_one(found, stretch.all_of)
    machines = sorted({one.asset for one in found})
    if stretch.asset is not None:
        found = [one for one in found if one.asset == stretch.asset]
    if not found:
        whys = left_out or [f"there are {', '.join(machines)}"]
        raise DataError(f"no readings of {stretch.asset or stretch.all_of or 'any machine'}: {'; '.join(whys)}")
    if stretch.asset is None and len(machines) > 1:
        raise DataError(
            f"the readings are of {len(machines)} machines ({', '.join(machines[:5])}): name one by --asset, or say by "
            "--all-of which one they are all of"
        )
    parts = [part for one in found if len(part := _within(one, stretch, alone=len(found) == 1))]
    if not parts:
        upto = f" to {stretch.until}" if stretch.until is not None else " on"
        raise DataError(f"{found[0].asset}: nothing was recorded from {stretch.since}{upto}")
    return parts


def _within(recording: Recording, stretch: Stretch, *, alone: bool) -> Recording:
    """Cut before files are joined, so that no more is held in memory than is asked for."""
    for moment in (stretch.since, stretch.until):
        if not alone and moment is not None and _is_number(moment):
            raise DataError(f"hours ({moment}) count from the beginning of one file, and there are several: give dates")
    inside = recording.hours >= recording.hours_at(stretch.since)
    if stretch.until is not None:
        inside &= recording.hours <= recording.hours_at(stretch.until)
    return recording.rows(inside)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _words(recording: Recording, word: Vouched, learnt: MachineMonitor) -> list[str]:
    """First what was done, then what follows from it."""
    what = f"{recording.asset}: {word.learnt} of {word.snapshots} snapshots from {word.since} to {word.until}"
    if word.replaced:
        told = [f"{what} are all that is normal now; the threshold is {learnt.threshold_:.3g}."]
    else:
        told = [
            f"{what} are learnt as a new regime.",
            "Under conditions that were known before, scores and threshold are as they were.",
        ]
        if word.gain < 1:
            told.append(f"Scores in the new regime count {word.gain:.2f} times, because it is less steady.")
    if word.beyond:
        told.append(f"{word.beyond} snapshots were beyond the threshold before, and are vouched for.")
    return told
