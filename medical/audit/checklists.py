"""A model card and two reporting checklists, filled in as far as the software knows.

Items follow the numbering of CLAIM (Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM):
2024 update", Radiology: Artificial Intelligence 2024), of TRIPOD+AI (Collins et al., BMJ 2024) and the headings of
model cards (Mitchell et al., FAT* 2019). Titles are ours and short: the originals hold what an item asks for.
"""

from collections.abc import Mapping
from typing import NamedTuple

OPEN = "OPEN: needs a person"


class Item(NamedTuple):
    """``known`` is what the software can say; ``missing`` what only a person can, empty when nothing is."""

    number: str
    title: str
    known: str
    missing: str

    @property
    def filled(self) -> bool:
        return not self.missing

    @property
    def text(self) -> str:
        return " ".join(part for part in (self.known, f"{OPEN} ({self.missing})." if self.missing else "") if part)


class Asked(NamedTuple):
    """``facts`` are joined; ``missing`` is what a person has to add even where all facts are known."""

    number: str
    title: str
    facts: tuple[str, ...] = ()
    missing: str = ""


CARD = (
    Asked("1", "What the model is", ("kind", "architecture", "software", "start")),
    Asked("2", "Who made it, and whom to ask", (), "people, contact, licence of the weights"),
    Asked("3", "What it is for, and what not", (), "intended users, setting, uses that are ruled out"),
    Asked("4", "What may change how well it works", ("who",), "factors beyond those in the data"),
    Asked("5", "How it was measured", ("metrics", "uncertainty", "output")),
    Asked("6", "Data that judged", ("data", "left out", "preparation")),
    Asked("7", "Data that taught", ("start", "training"), "where, when and from whom these pictures came"),
    Asked("8", "Results, and for whom", ("performance", "fairness", "robustness")),
    Asked("9", "Ethical questions", ("pseudonyms",), "consent, approval, harm of a missed or a false finding"),
    Asked("10", "Limits and advice", ("limits",)),
)
CLAIM = (
    Asked("1", "Title names the kind of AI", ("kind",), "the title of the study"),
    Asked("2", "Structured summary", ("data", "performance"), "the summary itself"),
    Asked("3", "Clinical background and role", (), "what the tool is for and where it stands in care"),
    Asked("4", "Aims and hypotheses", (), "what was to be shown"),
    Asked("5", "Looking back or ahead", (), "retrospective or prospective"),
    Asked("6", "Kind of study", (), "feasibility, comparison, non-inferiority..."),
    Asked("7", "Where the data come from", ("data",), "hospitals, dates, how cases were found"),
    Asked("8", "Who was let in and who not", ("left out",), "criteria before the files were exported"),
    Asked("9", "Preparation of the data", ("preparation",)),
    Asked("10", "Parts of the data used", ("data", "training")),
    Asked("11", "De-identification", ("pseudonyms",), "what was done before the files came here"),
    Asked("12", "Missing data", ("missing",)),
    Asked("13", "How pictures were taken", (), "machines, protocols, views"),
    Asked("14", "Reference standard: what it is", (), "who or what said that it was there"),
    Asked("15", "Reference standard: why this one", (), "reasons and known faults"),
    Asked("16", "Reference standard: who read", (), "readers, their training, instructions"),
    Asked("17", "Labels of the judging pictures", ("data",), "how these labels came about"),
    Asked("18", "Agreement of readers", (), "within and between readers"),
    Asked("19", "How parts were made", ("partition",)),
    Asked("20", "At what level parts are apart", ("partition",)),
    Asked("21", "Number of cases, and why", ("data",), "why so many"),
    Asked("22", "The model", ("architecture", "output")),
    Asked("23", "Software", ("software",)),
    Asked("24", "Starting weights", ("start",)),
    Asked("25", "Training", ("training",)),
    Asked("26", "How the final model was chosen", ("selection",)),
    Asked("27", "Ensembles", ("ensemble",)),
    Asked("28", "Metrics", ("metrics",)),
    Asked("29", "Uncertainty and significance", ("uncertainty",)),
    Asked("30", "Robustness", ("robustness",)),
    Asked("31", "Explanations, and whether they hold", ("explanation",)),
    Asked("32", "Test on data of the same origin", ("performance",), "whether these pictures are such"),
    Asked("33", "Test on data from elsewhere", (), "another hospital's pictures, or why there are none"),
    Asked("34", "Trial registration", (), "registry and number, where it applies"),
    Asked("35", "Flow of cases", ("flow", "left out")),
    Asked("36", "Who the patients were", ("who",), "clinical characteristics"),
    Asked("37", "Performance, and beside readers", ("performance",), "comparison with readers, where there is one"),
    Asked("38", "Precision of the estimates", ("performance", "uncertainty")),
    Asked("39", "What went wrong", ("failures",), "a look at the missed and the false cases"),
    Asked("40", "Limitations", ("limits",), "those of the study"),
    Asked("41", "What it means for practice", (), "intended use and next steps"),
    Asked("42", "Protocol and details", ("runs",), "where the protocol is kept"),
    Asked("43", "Code, model and data to be had", ("software",), "who may have what, and where"),
    Asked("44", "Money and its influence", (), "funders and their part"),
)
TRIPOD_AI = (
    Asked("1", "Title", ("kind",), "population and outcome in the title"),
    Asked("2", "Summary", ("data", "performance"), "the summary itself"),
    Asked("3a", "Health-care context", (), "purpose and earlier models"),
    Asked("3b", "Whom it is for, and who uses it", (), "population, users, place in care"),
    Asked("3c", "Known inequalities in health", (), "between which groups"),
    Asked("4", "Objectives", (), "building, judging, or both"),
    Asked("5a", "Sources of data", ("data", "training"), "origin, and how like the target they are"),
    Asked("5b", "Dates", (), "first, last, follow-up"),
    Asked("6a", "Setting", (), "kind and number of places"),
    Asked("6b", "Who was eligible", ("left out",), "criteria before the files were exported"),
    Asked("6c", "Treatments", (), "any that matter"),
    Asked("7", "Preparation of the data", ("preparation",)),
    Asked("8a", "Outcome", ("kind",), "how and when it was established"),
    Asked("8b", "Who judged the outcome", (), "qualification"),
    Asked("8c", "Blinding of the outcome", (), "what the judges knew"),
    Asked("9a", "Choice of predictors", ("predictors",)),
    Asked("9b", "Definition of predictors", ("preparation",), "how pictures were taken"),
    Asked("9c", "Subjective predictors", ("predictors",)),
    Asked("10", "Number of cases", ("data",), "why so many"),
    Asked("11", "Missing data", ("missing",)),
    Asked("12a", "Use of the data", ("partition",)),
    Asked("12b", "Handling of predictors", ("preparation",)),
    Asked("12c", "Kind of model and how it was built", ("architecture", "start", "training", "selection")),
    Asked("12d", "Differences between places", (), "whether results were looked at by hospital"),
    Asked("12e", "Measures of performance", ("metrics", "uncertainty")),
    Asked("12f", "Changes after judging", ("updates",)),
    Asked("12g", "How a prediction is made", ("output", "ensemble")),
    Asked("13", "Imbalance of classes", ("imbalance",)),
    Asked("14", "Fairness: what was done", ("fairness",), "whether these are the groups that matter here"),
    Asked("15", "Output and thresholds", ("output",)),
    Asked("16", "Teaching and judging data compared", ("training", "data"), "differences in setting and outcome"),
    Asked("17", "Ethical approval", (), "board, number, consent"),
    Asked("18a", "Funding", (), "sources and their part"),
    Asked("18b", "Conflicts of interest", (), "of every author"),
    Asked("18c", "Protocol", (), "where it is kept"),
    Asked("18d", "Registration", (), "registry and number"),
    Asked("18e", "Sharing of data", (), "who may have them"),
    Asked("18f", "Sharing of code", ("software",), "the study's own scripts"),
    Asked("19", "Patients and public", (), "whether and how they took part"),
    Asked("20a", "Flow of participants", ("flow", "left out")),
    Asked("20b", "Who they were", ("who", "missing"), "clinical characteristics"),
    Asked("20c", "Compared with the teaching data", (), "distribution of important predictors"),
    Asked("21", "Numbers in each step", ("training", "data")),
    Asked("22", "The model, so that others can use it", ("architecture", "runs"), "where the weights are kept"),
    Asked("23a", "Performance, by group as well", ("performance", "fairness")),
    Asked("23b", "Differences between places, measured", (), "results by hospital, where there are several"),
    Asked("24", "Results of an update", ("updates",)),
    Asked("25", "Interpretation", (), "with fairness in mind"),
    Asked("26", "Limitations", ("limits",), "those of the study"),
    Asked("27a", "Poor input at the point of use", ("left out",), "what staff do with refused pictures"),
    Asked("27b", "What users must know and do", (), "interaction and expertise"),
    Asked("27c", "Next steps", (), "research still needed"),
)


def fill(asked: tuple[Asked, ...], facts: Mapping[str, str]) -> list[Item]:
    """The items with what is known; a fact that is not known is left to a person."""
    items = []
    for number, title, names, missing in asked:
        said = [facts.get(name, "") for name in names]
        unknown = [name for name, text in zip(names, said, strict=True) if not text]
        open_ = "; ".join([*([missing] if missing else []), *(f"not known here: {name}" for name in unknown)])
        items.append(Item(number, title, " ".join(text for text in said if text), open_))
    return items


def count(items: list[Item]) -> tuple[int, int]:
    """Filled and open."""
    filled = sum(item.filled for item in items)
    return filled, len(items) - filled
