"""One encoder for several kinds of data: pretrained together, left as a model folder for each vertical."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from unlabeled.core import fingerprint, tracking
from unlabeled.core.budget import AS_FOUND, Rates, priced
from unlabeled.core.checkpoints import check_free, replacing
from unlabeled.core.dry_run import estimate
from unlabeled.core.errors import DataError
from unlabeled.core.optimization import TrainingSettings
from unlabeled.core.report import training_report
from unlabeled.core.several_kinds import Lesson, of_kind, teach_together, together
from unlabeled.core.training import History, forget
from unlabeled.fraud import FraudDetector
from unlabeled.fraud.history_model import Size
from unlabeled.medical import PneumoniaModel
from unlabeled.pipelines import _cost as cost
from unlabeled.pipelines._medical_input import read_unlabelled
from unlabeled.pipelines._sensors_files import first
from unlabeled.pipelines._sensors_pretraining import told
from unlabeled.pipelines.fraud import read_payments
from unlabeled.pipelines.jobs import Outcome
from unlabeled.sensors import MachineMonitor, read
from unlabeled.sensors.recording import NORMAL_SHARE

EXPERIMENT = "unlabeled/joint"


@dataclass(frozen=True)
class Shape:
    """Of the encoder that all kinds share."""

    dim: int = 64
    depth: int = 3
    heads: int = 4


@dataclass
class Room:
    """What one vertical brings.

    Attributes:
        lessons: by kind of data.
        finish: ends the vertical's pretraining with the histories of its kinds, and saves its model into a folder under
            the number of the run.
        reads: the data in a few words.
        fingerprint: of the data.
        next: the command that goes on from the folder.
        left_out: which inputs were not used, and why.
    """

    lessons: dict[str, Lesson]
    finish: Callable[[Mapping[str, History], Path, str], None]
    reads: str
    fingerprint: str
    next: str
    left_out: list[tuple[str, str]] = field(default_factory=list)


def pretrain(
    *,
    out: Path,
    xrays: Path | None = None,
    machines: Sequence[Path] = (),
    payments: Path | None = None,
    size: int = 64,
    normal_share: float = NORMAL_SHARE,
    fs: float | None = None,
    every: float | None = None,
    until: str | None = None,
    shape: Shape | None = None,
    steps: int = 1500,
    learning_rate: float = 1e-3,
    seed: int = 0,
    dry_run: bool = False,
    rates: Rates = AS_FOUND,
) -> Outcome:
    """Pretrains one set of transformer blocks on at least two kinds of data; each vertical goes on from its own folder.

    Args:
        out: gets the folders ``medical``, ``sensors`` and ``fraud``, as far as they were given data.
        xrays, machines, payments: as the verticals' own pretraining commands take them.
        size: rows and columns of the radiographs.
        normal_share: of each machine's record, from its start.
        fs, every: sampling rate (Hz) and seconds between snapshots, where the machines' files do not say.
        until: payments before this time only.
        steps: each takes a batch of every kind.
        learning_rate: the highest.

    Raises:
        DataError: fewer than two kinds of data.
    """
    shape = shape or Shape()
    rooms: dict[str, Room] = {}
    for name in ("medical", "sensors", "fraud"):
        check_free(out / name)
    if (xrays is not None) + bool(machines) + (payments is not None) < 2:
        raise DataError("a joint pretraining needs two kinds of data at least: --xrays, --machines, --payments")
    if xrays is not None:
        rooms["medical"] = _radiographs(xrays, size, shape, seed)
    if machines:
        rooms["sensors"] = _machines(machines, normal_share, fs, every, shape, seed)
    if payments is not None:
        rooms["fraud"] = _payments(payments, until, shape, seed)
    lessons = {kind: lesson for room in rooms.values() for kind, lesson in room.lessons.items()}
    settings = TrainingSettings(steps=steps, lr=learning_rate, checkpoint_every=max(1, min(200, steps // 10)))
    reads = ", ".join(room.reads for room in rooms.values())
    if dry_run:
        return cost.dry_run(
            [estimate(*together(lessons), settings, seed=seed, label="joint pretraining")],
            rates=rates,
            reads=reads,
            left_out="reading the data, what each vertical does after its pretraining, and the report",
        )
    made_of = {"kinds": ", ".join(lessons), "dim": shape.dim, "depth": shape.depth, "heads": shape.heads,
               "steps": steps, "lr": learning_rate, "seed": seed, "data": reads}  # fmt: skip
    prints = fingerprint.of_names(room.fingerprint for room in rooms.values())
    state = out.with_name(f".{out.name}.state")
    with tracking.run(EXPERIMENT, f"pretrain {out.name}", params=made_of, tags={"data.fingerprint": prints}) as run:
        history = teach_together(
            lessons,
            settings=settings,
            seed=seed,
            state=state,
            describe={**made_of, "data": prints},
            log=priced(run.metrics, rates),
        )
        with ExitStack() as all_or_none:
            for name, room in rooms.items():
                folder = all_or_none.enter_context(replacing(out / name))
                room.finish({kind: of_kind(history, kind) for kind in room.lessons}, folder, run.run_id)
        forget(state)
        for name in rooms:
            run.model(out / name, f"model/{name}")
        page = training_report(
            title="One encoder, several kinds of data",
            subtitle=reads,
            says="The same transformer blocks have learnt from all of them, without labels.",
            facts={"kinds": len(lessons), "steps": history.steps},
            # Each loss over its own first value: they have units of their own.
            curves={kind: _relative(history.curves[kind]) for kind in lessons}
            | {name: curve for name, curve in history.curves.items() if ".watch." in name},
            made_of=made_of,
            synthetic=False,
            run_id=run.run_id,
        )
        left_out = [(name, *item) for name, room in rooms.items() for item in room.left_out]
        if left_out:
            page.section("What was left out").table(["for", "input", "reason"], left_out)
        report = page.write(out / "report.html")
        run.artifact(report)
    return Outcome(
        headline=f"Pretrained one encoder on {reads}. Whether it serves better than an encoder a kind is not a given: "
        "compare on your own data.",
        lines=[f"next: {room.next.format(folder=out / name)}" for name, room in rooms.items()],
        files={**{name: out / name for name in rooms}, "report": report},
        run_id=run.run_id,
        details={"kinds": list(lessons), "loss": {kind: history.curves[kind][-1][1] for kind in lessons}},
    )


def _radiographs(source: Path, size: int, shape: Shape, seed: int) -> Room:
    images = read_unlabelled(source, size=size)
    model = PneumoniaModel(
        image_size=size, framing=images.framing, dim=shape.dim, depth=shape.depth, heads=shape.heads, random_state=seed
    )

    def finish(histories: Mapping[str, History], folder: Path, run: str) -> None:
        model.taught(images, histories)
        model.provenance_["pretraining_run"] = run
        model.save(folder)

    return Room(
        model.lessons(images), finish, f"{len(images):,} radiographs", images.fingerprint(),
        "unlabeled medical finetune INPUT --labels CSV --model {folder}",
        [(skip.source, skip.reason) for skip in images.skipped],
    )  # fmt: skip


def _machines(
    sources: Sequence[Path], normal_share: float, fs: float | None, every: float | None, shape: Shape, seed: int
) -> Room:
    skipped: list[tuple[str, str]] = []
    recordings = told(read(*sources, fs=fs, every=every, left_out=skipped), skipped)
    monitor = MachineMonitor(dim=shape.dim, depth=shape.depth, heads=shape.heads, random_state=seed)
    rows = [monitor.teaching_rows(r, normal_rows=r.normal_rows(share=normal_share)) for r in recordings]
    taught = first(recordings, rows)

    def finish(histories: Mapping[str, History], folder: Path, run: str) -> None:
        monitor.taught(histories).save(folder, pretraining_run=run)

    return Room(
        monitor.lessons(taught, normal_share=1.0), finish,
        f"{sum(rows):,} snapshots or rows of {len(recordings)} machine(s)",
        fingerprint.of_names(fingerprint.of_array(r.values, r.hours) for r in taught),
        "unlabeled sensors fit INPUT --encoder {folder}", skipped,
    )  # fmt: skip


def _payments(source: Path, until: str | None, shape: Shape, seed: int) -> Room:
    known = read_payments(source, until=until)
    size = Size(dim=shape.dim, depth=shape.depth, heads=shape.heads)
    detector = FraudDetector(roles=known.roles, size=size, random_state=seed)

    def finish(histories: Mapping[str, History], folder: Path, run: str) -> None:
        detector.taught(known, histories)
        detector.manifest_["run_id"] = run
        detector.save(folder)

    why = known.skipped.groupby("reason")["row"]
    skipped = [(f"{len(rows):,} rows, e.g. {rows.iloc[0]}", str(reason)) for reason, rows in why]
    return Room(
        detector.lessons(known), finish, f"{len(known):,} payments", known.fingerprint(),
        "unlabeled fraud finetune TABLE --model {folder}",
        skipped,
    )  # fmt: skip


def _relative(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    start = curve[0][1] if curve and curve[0][1] else 1.0
    return [(step, value / start) for step, value in curve]
