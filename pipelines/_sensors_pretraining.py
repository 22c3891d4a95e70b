"""Reading machines, and the tracked pretraining on their normal periods."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.base import clone

from unlabeled.core import fingerprint, tracking
from unlabeled.core.budget import AS_FOUND, Budget, Rates, priced
from unlabeled.core.errors import DataError
from unlabeled.core.progress import say
from unlabeled.core.report import training_report
from unlabeled.core.training import History, forget
from unlabeled.pipelines import _ablation as ablation
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines._collapse import last_healthy
from unlabeled.sensors import report as pages
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.readers import RUNNING, Dates, read
from unlabeled.sensors.recording import Recording
from unlabeled.sensors.states import Asked
from unlabeled.sensors.tasks import check_bearing

EXPERIMENT = "unlabeled/sensors"


def pretrain(
    fleet: Sequence[Recording],
    normal: Sequence[int],
    *,
    template: MachineMonitor,
    state: Path,
    keep: Path,
    synthetic: bool = False,
    rates: Rates = AS_FOUND,
    asked: Asked | None = None,
    beside_random: bool = False,
    inside: str | None = None,
) -> tuple[MachineMonitor, str]:
    """A tracked pretraining run of its own on the first ``normal`` rows of each; the encoder is kept in ``keep``.

    Args:
        asked: snapshots whose state is looked at on the way, and never learnt from.
        beside_random: do the same with random masks first, and show both.
        inside: id of the run that this one is shown under.
    """
    ablation.check_folders(keep, beside_random=beside_random)
    check_bearing(template.masking, waveform=fleet[0].kind == "waveform")
    monitor: MachineMonitor = clone(template)
    with tracking.run(EXPERIMENT, f"pretrain {keep.name}", params=params(monitor), inside=inside) as run:
        run.params({"fleet": ", ".join(r.asset for r in fleet), "normal_rows": ", ".join(map(str, normal))})
        run.tags(prints(fleet, normal))
        beside = None
        if beside_random:
            other, folder = _with_random_masks(template), ablation.folder_beside(keep)

            def train() -> tuple[str, Mapping[str, History]]:
                trained, run_id = pretrain(
                    fleet, normal, template=other, state=ablation.folder_beside(state), keep=folder,
                    synthetic=synthetic, rates=rates, asked=asked, inside=run.run_id,
                )  # fmt: skip
                return run_id, {"": trained.history_}

            made_of = {**params(other), **prints(fleet, normal)}
            if asked is not None:
                made_of["looked at"] = fingerprint.of_array(*asked)
            beside = ablation.twin(folder, made_of=made_of, train=train)
        log = priced(run.metrics, rates)
        with last_healthy(run, keep, lambda folder: monitor.save(folder, pretraining_run=run.run_id)):
            monitor.pretrain(files.first(fleet, normal), normal_share=1.0, asked=asked, state=state, log=log)
        monitor.save(keep, pretraining_run=run.run_id)
        forget(state)
        page = training_report(
            title="Pretraining on normal periods",
            subtitle=f"{len(fleet)} recordings, no labels",
            says=f"The encoder has learnt from normal vibration or trends (task: {monitor.task_in_words}).",
            facts={"recordings": len(fleet), "steps": monitor.history_.steps},
            curves=pages.without_twins(monitor.history_.curves),
            made_of={**params(monitor), "recordings": ", ".join(r.asset for r in fleet)},
            synthetic=synthetic,
            run_id=run.run_id,
        )
        if beside is not None:
            verdict = "Where failures are known, 'sensors backtest' with either masking tells which warns earlier."
            ablation.show(page, run, {"": monitor.history_}, beside, masking=monitor.masking, verdict=verdict)
        run.artifact(page.write(keep / "report.html"))
        run.model(keep)
    return monitor, run.run_id


def costs(template: MachineMonitor, fleet: Sequence[Recording], *, beside_random: bool) -> list[Budget]:
    """What a pretraining on whole recordings would cost, training by training."""
    budgets = [template.pretraining_cost(fleet, normal_share=1.0)]
    if beside_random:
        other = _with_random_masks(template)
        budgets.append(replace(other.pretraining_cost(fleet, normal_share=1.0), label="with random masks"))
    return budgets


def _with_random_masks(template: MachineMonitor) -> MachineMonitor:
    monitor: MachineMonitor = clone(template)
    return monitor.set_params(masking=ablation.random_twin(template.masking))


def learnt_before(folder: Path) -> MachineMonitor:
    """An encoder that some pretraining left in a folder."""
    monitor = MachineMonitor.load(folder)
    if not monitor.pretrained_:
        raise DataError(f"{folder} holds a monitor that taught itself on one machine: give a folder of a pretraining")
    return monitor


def check_nothing_asked(template: MachineMonitor) -> None:
    """Raises a DataError where an encoder that is given would ignore what was asked of its pretraining."""
    usual = MachineMonitor()
    # The shaft's speed is for explanations too.
    names = ["steps", "task", "masking", "mask_ratio", "temperature", "augmentation", "lr"]
    changed = [name for name in names if getattr(template, name) != getattr(usual, name)]
    asked = ["--learning-rate" if name == "lr" else f"--{name.replace('_', '-')}" for name in changed]
    if asked:
        raise DataError(f"an encoder that is given has been taught already: leave out {', '.join(asked)}")


def copy_of(encoder: MachineMonitor, folder: Path, template: MachineMonitor) -> MachineMonitor:
    """A monitor of its own for each machine, with the pretrained encoder; ``template`` says what no encoder depends on.

    Raises:
        DataError: the encoder hides patches by another shaft speed than the one asked for.
    """
    if not encoder.pretrained_:
        return encoder
    if encoder.masking == "bearing" and template.shaft_hz not in (None, encoder.shaft_hz):
        raise DataError(
            f"the encoder hides patches by a shaft speed of {encoder.shaft_hz or 'unknown'} Hz, which --shaft-hz "
            "cannot change"
        )
    own = {name: getattr(template, name) for name in ("shaft_hz", "bearing", "false_alarms", "detector")}
    told = {name: value for name, value in own.items() if value is not None}
    told["find_regimes"] = template.find_regimes
    return MachineMonitor.load(folder).set_params(random_state=encoder.random_state, **told)


def alike(one: Recording, other: Recording) -> bool:
    same = one.kind == other.kind and one.values.shape[2:] == other.values.shape[2:]
    return same and (one.kind == "waveform" or one.names == other.names)


def fleet_of(
    inputs: Sequence[Path],
    skipped: list[tuple[str, str]],
    *,
    fs: float | None,
    every: float | None,
    signal: Sequence[str],
    operating: Sequence[str],
    assets: Sequence[str] = (),
    all_of: str | None = None,
    dates: Dates | None = None,
    running_column: str = RUNNING,
) -> list[Recording]:
    """Machines from files (:func:`~unlabeled.sensors.readers.read`), with what is to be said of them; files that cannot
    be read join ``skipped``."""
    unread: list[tuple[str, str]] = []
    fleet = told(
        read(
            *inputs, fs=fs, every=every, signal=signal, operating=operating, assets=assets, all_of=all_of, dates=dates,
            running_column=running_column, left_out=unread,
        ),
        unread,
    )  # fmt: skip
    skipped += unread
    return fleet


def told(recordings: list[Recording], unread: Sequence[tuple[str, str]] = ()) -> list[Recording]:
    """Says how the files were read, and which could not be."""
    for name, why in unread:
        say(f"{name} is left out: {why}")
    notes: dict[tuple[str, str], list[str]] = {}
    for recording in recordings:
        for note in recording.notes:
            notes.setdefault((recording.source, note), []).append(recording.asset)
    for (source, note), names in notes.items():
        say(f"{Path(source).name}: {note} [{', '.join(names)}]")
    return recordings


def params(monitor: MachineMonitor) -> dict[str, Any]:
    return monitor.get_params(deep=False)


def prints(recordings: Sequence[Recording], rows: Sequence[int]) -> dict[str, str]:
    return {
        "data.fingerprint": fingerprint.of_names(fingerprint.of_array(r.values, r.hours) for r in recordings),
        "split.fingerprint": fingerprint.of_names(f"{r.asset}:{n}" for r, n in zip(recordings, rows, strict=True)),
    }
