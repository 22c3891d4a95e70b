"""What ``unlabeled medical run`` is asked for, and which of its stages depends on what of that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unlabeled.medical.images import PNEUMONIA

NEED = "labels needed"
STAGES = ("intake", "pretraining", "fine-tuning", "audit", "package")
_TEACHING = ("steps", "n_labels", "self_training", "ensemble", "seed")
# The settings that a stage depends on besides the stages before it.
SETTINGS: dict[str, tuple[str, ...]] = {
    "intake": ("size", "site", "ocr", "findings"),
    "pretraining": ("epochs", "seed", "leave_out_flagged"),
    "fine-tuning": _TEACHING,
    NEED: _TEACHING,
    "audit": ("label_need",),
    "package": ("register",),
}
# The stages that a stage goes on from.
AFTER: dict[str, tuple[str, ...]] = {
    "intake": (),
    "pretraining": ("intake",),
    "fine-tuning": ("pretraining",),
    NEED: ("pretraining",),
    "audit": ("fine-tuning", NEED),
    "package": ("fine-tuning",),
}
# What is kept as a digest, because it names somebody or is long, and what is said where it changed.
FOLDER, LABELS, TAUGHT = "folder", "labels", "pictures"
CHANGED = {
    FOLDER: "the folder of films is another one",
    LABELS: "the labels say something else",
    TAUGHT: "other pictures are learnt from",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is asked for; the same plan goes on where an interrupted one stopped.

    Attributes:
        size: rows and columns of the pictures that are learnt from; the store's as well.
        epochs: of the pretraining.
        steps: of the fine-tuning of each network; ``None``: as usual.
        n_labels: use so many labels only.
        site: what the column ``site`` says.
        register: name in MLflow's registry; of several findings, before the name of each (or empty).
        seed: fixes everything random.
        findings: what the labels are about; several are learnt together.
        self_training: the networks teach others from the pictures without labels.
        ensemble: networks that vote in place of each one.
        leave_out_flagged: nothing is learnt from, or judged on, pictures that the intake flags.
        ocr: the intake also reads for text away from the borders.
        label_need: it is measured how many labels are needed, for the audit's page.
    """

    size: int = 64
    epochs: int = 50
    steps: int | None = None
    n_labels: int | None = None
    site: str = ""
    register: str = PNEUMONIA
    seed: int = 0
    self_training: bool = False
    ensemble: int = 1
    findings: tuple[str, ...] = (PNEUMONIA,)
    leave_out_flagged: bool = False
    label_need: bool = False
    ocr: bool = False

    def stages(self) -> list[str]:
        """What is done, in order; of several findings, the later ones once for each."""
        later = ([NEED] if self.label_need else []) + list(STAGES[3:])
        each = [f"{stage}{self.of(name)}" for name in self.findings for stage in later]
        return [*STAGES[:3], *each]

    def of(self, finding: str) -> str:
        """How the name of a finding's own stage ends."""
        return f" of {finding}" if len(self.findings) > 1 else ""


def kind_of(stage: str) -> str:
    """A stage without the finding that it is about."""
    return stage.partition(" of ")[0]


def stages_before(stage: str) -> list[str]:
    """The stages that this one goes on from, those of its finding where there is one for each."""
    what, of, finding = stage.partition(" of ")
    return [name if name in STAGES[:3] else f"{name}{of}{finding}" for name in AFTER[what]]


def settings_of(stage: str, plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage takes of a plan (:class:`Plan`'s attributes by name)."""
    return {name: plan[name] for name in SETTINGS[kind_of(stage)] if name in plan}


def in_words(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between what a stage was made of and what it would be made of now. An entry that was not kept, as
    earlier versions kept fewer, does not differ."""
    changed = [name for name in now if name in before and before[name] != now[name]]
    settings = [
        f"{_option(name)} was {_shown(before[name])}, is {_shown(now[name])}"
        for name in changed
        if name not in CHANGED and kind_of(name) not in AFTER
    ]
    # Digests and later stages follow from settings: they are named where no setting explains them.
    return settings or [CHANGED.get(name, f"the {name} was done again") for name in changed]


def _option(name: str) -> str:
    return "--finding" if name == "findings" else f"--{name.replace('_', '-')}"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " and ".join(map(str, value))
    return "not given" if value in (None, "") or value is False else "given" if value is True else str(value)
