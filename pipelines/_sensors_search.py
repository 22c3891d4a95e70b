"""``unlabeled sensors search``: which settings of a pretraining tell known states of machines apart best?"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from sklearn.base import clone

from unlabeled.core import tracking
from unlabeled.core.audit.collapse import linear_probe
from unlabeled.core.budget import AS_FOUND, Rates, priced
from unlabeled.core.errors import DataError
from unlabeled.core.pretext import Pretraining
from unlabeled.core.search import Range
from unlabeled.core.search import Report as Told
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines import _search as shared
from unlabeled.pipelines import _sensors_files as files
from unlabeled.pipelines import _sensors_pretraining as pre
from unlabeled.pipelines import _sensors_summary as summary
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors.monitor import MachineMonitor
from unlabeled.sensors.readers import read
from unlabeled.sensors.recording import NORMAL_SHARE, Recording
from unlabeled.sensors.states import Asked, asked_of, read_states
from unlabeled.sensors.tasks import HIDING, VIEWING, check_bearing


def search(
    inputs: Sequence[Path],
    *,
    out: Path,
    labels: Path,
    trials: int = 20,
    normal_share: float = NORMAL_SHARE,
    normal_until: str | None = None,
    fs: float | None = None,
    every: float | None = None,
    signal: Sequence[str] = (),
    operating: Sequence[str] = (),
    assets: Sequence[str] = (),
    template: MachineMonitor | None = None,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Tries settings of the pretraining on normal periods, judged by a linear probe on snapshots in known states.

    With ``dry_run``, only says what that would cost if no trial ended early.

    Args:
        labels: CSV of known states (:func:`~unlabeled.sensors.states.read_states`).
        template: a monitor with the settings that are not searched, and the defaults of those that are.

    Raises:
        DataError: the task has none of these settings, the states cannot be told by anything, or every trial failed.
    """
    template = template or MachineMonitor()
    space = space_of(template)
    if not space:
        raise DataError(f"the task '{template.task}' has no mask ratio, temperature or augmentation to search")
    known = read_states(labels)
    skipped: list[tuple[str, str]] = []
    fleet = pre.told(
        read(*inputs, fs=fs, every=every, signal=signal, operating=operating, assets=assets, left_out=skipped), skipped
    )
    check_bearing(template.masking, waveform=fleet[0].kind == "waveform")
    taught = [
        template.teaching_rows(
            r, normal_rows=r.normal_rows(share=normal_share, until=summary.hours_of(normal_until, r))
        )
        for r in fleet
    ]
    asked = asked_of(fleet, taught, known, window=template.window, seed=template.random_state)
    lessons = files.first(fleet, taught)
    if dry_run:
        (one,) = pre.costs(template, lessons, beside_random=False)
        return cost.dry_run(
            [one.times(trials, f"{trials} trials, none ended early")],
            rates=rates,
            reads=f"{sum(taught):,} rows of {len(fleet)} recording(s)",
            left_out="reading the files, the probes that judge, and the report",
        )
    states = sorted(set(asked.labels))
    given = {"--fs": fs, "--every": every, "--normal-until": normal_until}
    again = [shlex.quote(str(path)) for path in inputs]
    again += [f"{option} {shlex.quote(str(value))}" for option, value in given.items() if value is not None]
    again += [f"--signal {shlex.quote(name)}" for name in signal]
    again += [f"--operating {shlex.quote(name)}" for name in operating]
    again += [f"--asset {shlex.quote(asset)}" for asset in assets]
    again += [] if normal_share == NORMAL_SHARE or normal_until is not None else [f"--normal-share {normal_share:g}"]
    question = shared.Question(
        experiment=pre.EXPERIMENT,
        space=space,
        first={name: getattr(template, name) for name in space},
        trials=trials,
        seed=template.random_state,
        metric="AUROC" if len(states) == 2 else "Accuracy",
        judged=f"on {len(asked.labels)} snapshots ({', '.join(states)})",
        then=lambda _: " ".join(["unlabeled sensors fit", *again, "--encoder", shlex.quote(str(out / "model"))]),
        settings={**pre.params(template), "trials": trials, "fleet": ", ".join(r.asset for r in fleet)},
        shown={"task": template.task, "recordings": len(fleet), "trials": trials, "judged on": len(asked.labels)},
        limits="The best of many trials looks better than it is: the snapshots that chose it cannot judge it, and each "
        "is told from others of the same machines. Compare on machines that did not choose (sensors backtest).",
        tags=pre.prints(fleet, taught),
    )
    train = _Trials(template, lessons, asked, rates)

    def save(folder: Path) -> Path:
        assert train.best.model is not None
        monitor, run_id = train.best.model
        return monitor.save(folder, pretraining_run=run_id)

    return shared.search(question, train, save, out=out)


def space_of(template: MachineMonitor) -> dict[str, Range]:
    """The settings that the monitor's task has."""
    task = template.task
    masking = template.masking if task in HIDING else None
    return shared.space_of(masking=masking, contrasts=task == "contrastive", views=task in VIEWING)


class _Trials:
    """Pretrains with some settings; a linear probe on snapshots in known states judges, each by the fit without it."""

    def __init__(self, template: MachineMonitor, lessons: Sequence[Recording], asked: Asked, rates: Rates) -> None:
        self.template, self.lessons, self.asked, self.rates = template, lessons, asked, rates
        self.best = shared.Best[tuple[MachineMonitor, str]]()

    def __call__(self, values: Mapping[str, float], report: Told, run: tracking.Run) -> float:
        trial: MachineMonitor = clone(self.template).set_params(**values)
        scores: list[float] = []

        def judge(module: Pretraining) -> float:
            rows = torch.from_numpy(self.asked.pictures)
            scores.append(linear_probe(module.pretext.embed(module.backbone, rows).numpy(), self.asked.labels))
            report(len(scores), scores[-1])
            return scores[-1]

        trial.pretrain(self.lessons, normal_share=1.0, log=priced(run.metrics, self.rates), judge=judge)
        return self.best.offer(max(scores), (trial, run.run_id))
