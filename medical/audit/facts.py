"""What the software knows about a model and its audit, in sentences: the answers of the card and the checklists."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from unlabeled import __version__
from unlabeled.medical._finetuning import MOMENTS, SENSITIVITY, USUAL
from unlabeled.medical._operating import decision_of
from unlabeled.medical._report_decisions import percent
from unlabeled.medical._storage import preprocessing
from unlabeled.medical.attributes import ATTRIBUTES
from unlabeled.medical.audit.measures import Audit
from unlabeled.medical.evaluation import over_patients
from unlabeled.medical.images import Skip, skip_summary
from unlabeled.medical.model import PneumoniaModel
from unlabeled.medical.report import LIMITS, steps_taken
from unlabeled.medical.transforms import LOOK

USED = ("torch", "numpy", "scikit-learn", "pydicom", "monai")
PSEUDONYMS = (
    "Patient ids of DICOM files are replaced by pseudonyms when they are read; which is whose, an intake writes to its "
    "ledger and to nothing else. Patient ids of tables stay as they are given. The audit writes neither: it writes how "
    "many, and the names of inputs that were left out. Exact ages become bands. An institution that a DICOM file names "
    "becomes a stand-in; a site that a table or the intake was given stays as it is."
)


class Flow(NamedTuple):
    """What became of the inputs: each is counted once.

    Attributes:
        skipped: could not be used at all, or were left out on request.
        unlabelled: have no label.
        learnt: have one, and are of patients whose labels the model learnt from.
        aside: have one, are of other patients, and were not asked to judge (other parts of a split, say).
        judged: are what the audit is about.
    """

    skipped: int
    unlabelled: int
    learnt: int
    aside: int
    judged: int

    def says(self) -> str:
        """The sentence that adds up."""
        read = sum(self) - self.skipped
        return (
            f"{sum(self):,} inputs: {self.skipped:,} were left out before (they could not be used, or were not to be), "
            f"{read:,} were read. Of those, {'; '.join([*self.not_judged(), f'{self.judged:,} judged'])}."
        )

    def not_judged(self) -> list[str]:
        """Pictures that were read and did not judge, in words."""
        parts = (
            (self.unlabelled, "without a label"),
            (self.learnt, "left out because the model learnt from their patients"),
            (self.aside, "with a label and not asked to judge"),
        )
        return [f"{count:,} {what}" for count, what in parts if count]


def known(model: PneumoniaModel, audit: Audit, skipped: Sequence[Skip], flow: Flow) -> dict[str, str]:
    """Sentences by what they are about; an absent one is not known."""
    return {
        **_of_model(model, audit.unseen.named_by),
        **_of_data(audit, skipped, flow, model.finding),
        **_of_results(audit, model.finding),
    }


def _of_model(model: PneumoniaModel, named_by: str) -> dict[str, str]:
    taught, learnt, decision = model.finetuning_ or {}, model.pretraining_, decision_of(model)
    weights = sum(p.numel() for p in model.module_.backbone.parameters())
    grid = (model.image_size // model.patch) ** 2
    begun = [f"weights drawn at random (seed {model.random_state})"]
    if model.start_ is not None:
        begun = [f"the encoder of {model.start_.name} (fingerprint {model.start_.fingerprint})"]
    if learnt is not None:
        begun.append(
            f"pretrained without labels on {learnt['images']:,} pictures (task '{model.task}', masking "
            f"'{model.masking}', mask ratio {model.mask_ratio:g}, {learnt['steps']:,} steps, data fingerprint "
            f"{learnt['fingerprint']})"
        )
    voters = f"{len(model.members_)} network(s)" + (" and as many linear probes" if model.has_learnt else "")
    return {
        "kind": f"A vision transformer that gives a frontal chest radiograph a probability of {model.finding}: "
        "computer-aided reading by machine learning. For research only; not a medical device.",
        "architecture": f"Vision transformer: {grid} patches of {model.patch} x {model.patch} pixels, width "
        f"{model.dim}, {model.depth} blocks, {model.heads} heads, {weights:,} parameters; a linear layer on the mean "
        f"token. {model.image_size} x {model.image_size} pixels in, one probability out.",
        "software": f"unlabeled {__version__}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in USED)
        + ".",
        "start": _sentence("; ".join(begun)) + ".",
        "preparation": f"{_sentence(preprocessing(model))}.",
        "training": f"Fine-tuned on {taught.get('images', 0):,} labelled pictures of {taught.get('patients', 0):,} "
        f"patients, {taught.get('positives', 0):,} with {model.finding} (data fingerprint "
        f"{taught.get('fingerprint')}), {taught.get('steps', 0)} optimiser "
        f"steps a network, tuning '{model.tuning}', random crops, turns and "
        f"contrasts, classes weighted alike; seed {model.random_state}.{_of_unlabelled(model, taught)}",
        "predictors": "The pixels of one frontal picture and nothing else: no other finding and nobody's judgement "
        "goes into a prediction.",
        "updates": "Weights, temperature and thresholds were not changed on the audited pictures.",
        "selection": f"{_kept_moment(model, taught)}; no version was chosen by its results on the audited pictures.",
        "ensemble": f"{voters}; each looks at a picture three times, as it is and stretched by {LOOK:g} either way, "
        "and their mean log odds count.",
        "imbalance": f"Both classes weigh the same in the loss; the share of {model.finding} among the labels "
        f"({100 * decision.prevalence:.0f} % where thresholds were chosen) is put back before probabilities are given.",
        "output": f"A probability (temperature {decision.temperature:.3f}); a call at {decision.threshold:.4f} (best "
        f"balanced accuracy) and a second one at {decision.sensitive_threshold:.4f} ({100 * SENSITIVITY:.0f} % of "
        f"{model.finding} found), both chosen on {taught.get('decided_on', 'held-out pictures')} ({decision.chosen_on} "
        "pictures).",
        "partition": "By patient: patients that the model learnt from are refused or left out by the audit. "
        f"Thresholds come from {taught.get('decided_on', 'held-out pictures')}."
        if model.knows_whom(named_by)
        else "",
        "runs": ", ".join(f"{name.replace('_', ' ')} {run}" for name, run in sorted(model.provenance_.items())) or "",
    }


def _kept_moment(model: PneumoniaModel, taught: Mapping[str, Any]) -> str:
    if not model.early_stop:
        return "A fixed number of steps"
    return (
        f"Of up to {MOMENTS} moments of each network's training the one of the highest AUROC on "
        f"{taught.get('decided_on', 'held-out pictures')} was kept, on which thresholds were chosen too"
    )


def _of_unlabelled(model: PneumoniaModel, taught: Mapping[str, Any]) -> str:
    said = ""
    if "usual" in taught:
        said = (
            f" What is usual was learnt from up to {USUAL:,} of {taught['usual']['images']:,} pictures without labels "
            f"(data fingerprint {taught['usual']['fingerprint']}), those of patients who decided left out."
        )
    if "students" not in taught:
        return said
    steps, more = steps_taken(model)
    return said + (
        " Each of these networks then taught another one, which took its place, from what it said of "
        f"{taught['students']['images']:,} pictures without labels (data fingerprint "
        f"{taught['students']['fingerprint']}), those of patients who decided on thresholds left out: {more} steps "
        f"more, {steps + more} a network in all."
    )


def _of_data(audit: Audit, skipped: Sequence[Skip], flow: Flow, finding: str) -> dict[str, str]:
    unseen = audit.unseen
    assert unseen.labels is not None
    people, ill = len(np.unique(unseen.patients)), int(unseen.labels.sum())
    nobody = np.full(len(unseen), "")
    unknown = {name: int((unseen.attributes.get(name, nobody) == "").sum()) for name in ATTRIBUTES}
    known_of = [f"{name.replace('_', ' ')} is unknown of {n} of {len(unseen)}" for name, n in unknown.items()]
    who = "; ".join(f"{name.replace('_', ' ')} ({_counted(values)})" for name, values in unseen.attributes.items())
    return {
        "data": f"{len(unseen):,} audited pictures of {people:,} patients, {ill:,} with {finding} "
        f"({percent(over_patients(unseen.labels, unseen.patients))}); data fingerprint {unseen.fingerprint()}.",
        "left out": _left_out(skipped, flow),
        "missing": f"Pictures are always whole. Of attributes, {'; '.join(known_of)}.",
        "who": f"{_sentence(who)}." if who else "",
        "pseudonyms": PSEUDONYMS,
        "flow": flow.says(),
    }


def _left_out(skipped: Sequence[Skip], flow: Flow) -> str:
    said, unfit = [], len(skipped) - flow.skipped
    if skipped:
        what = f"{flow.skipped:,} inputs" + (f" and {unfit:,} line(s) of labels that fit no picture" if unfit else "")
        reasons = "; ".join(f"{count} x {reason}" for reason, count, _ in skip_summary(skipped))
        said.append(f"{what} left out, each with its reason: {reasons}.")
    if flow.not_judged():
        said.append(f"Read and not judged: {'; '.join(flow.not_judged())}.")
    return " ".join(said) or "Every input was used."


def _of_results(audit: Audit, finding: str) -> dict[str, str]:
    overall, maps, labels = audit.overall, audit.maps, audit.unseen.labels
    assert labels is not None
    names = ("AUROC", "sensitivity", "specificity", "calibration error")
    missed = over_patients(
        audit.scored.probability < audit.scored.decision.threshold,
        audit.unseen.patients,
        among=labels == 1,
    )
    told = [f"{s.name} {s.found.auroc}" for s in audit.label_probes if s.found is not None]
    lost = [f"{o.name} {o.auroc}" for o in audit.occluded]
    return {
        "metrics": "AUROC, average precision, sensitivity and specificity at two thresholds, balanced accuracy, "
        "expected calibration error, underdiagnosis and false positive rate, shares referred and out of distribution.",
        "uncertainty": "95 % bootstrap intervals over patients; where no draw moves a number (all are right or wrong), "
        "from the number of patients (Wilson; of AUROCs, also those of probes, Newcombe; of differences of AUROCs, "
        "from those of both: MOVER); of the calibration error, draws turned round the number, because noise only "
        "raises it; differences are paired; gaps between groups and probes are corrected for their number (Holm).",
        "performance": ", ".join(f"{name} {overall[name]}" for name in names) + ".",
        "fairness": _fairness(audit),
        "robustness": f"AUROC of the label from what is no lung: {'; '.join(told) or 'not measured'}. The model with "
        f"parts left out: {'; '.join(lost)}.",
        "explanation": f"Heat maps by leaving patches out; tested on {maps.pictures} pictures: deletion gain "
        f"{maps.faithful.deletion_gain}, insertion gain {maps.faithful.insertion_gain}; on {maps.compared} pictures: "
        f"rank correlation with maps of a randomised model {maps.randomised}.",
        "failures": f"{percent(missed)} of {finding} is missed at the plain threshold"
        + ("; groups in which more is missed are in the table of groups." if audit.groups.groups else "."),
        "limits": " ".join(LIMITS),
    }


def _fairness(audit: Audit) -> str:
    """Nothing, where no two groups could be compared: that is no result."""
    if not audit.groups.compared:
        return ""
    by = ", ".join(name.replace("_", " ") for name in audit.unseen.attributes)
    found = "gaps that stand: " + "; ".join(audit.gaps) if audit.gaps else "no gap stands after correction"
    return (
        f"{len(audit.groups.groups)} groups by {by} and their intersections, {audit.groups.compared} pairs of those "
        f"with at least {audit.groups.least} patients of either class compared; {found}."
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _counted(values: np.ndarray) -> str:
    return ", ".join(f"{value or 'not known'}: {count}" for value, count in Counter(values.tolist()).most_common(8))
