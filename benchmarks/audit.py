"""``unlabeled medical audit`` where age, sex and view are known: adults' radiographs, any finding against none.

    python benchmarks/audit.py --folder FOLDER

Data (not part of this repository): nih64_demo, 911 radiographs of 258 adults at 64 px with ages, sexes, views and the
originals' sizes, split by patient. The commands run as a user would give them: pretraining on the training part,
fine-tuning on its labels, and one audit of the test part. The numbers show what the page can say of so few pictures;
text-mined labels and 64 px make no good model.
"""

import argparse
import json
import shutil
from pathlib import Path

import pandas as pd

from unlabeled.core.hardware import describe_hardware
from unlabeled.pipelines import _medical_audit as auditing
from unlabeled.pipelines import medical

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "shared/data/xray/nih64_demo"
RATES = ("AUROC", "sensitivity", "underdiagnosis rate", "false positive rate", "calibration error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--folder", type=Path, required=True, help="outside the repository")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--least", type=int, default=10, help="patients of either class that a group needs")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    given = parser.parse_args()
    shutil.rmtree(given.folder, ignore_errors=True)
    given.folder.mkdir(parents=True)
    labels = given.folder / "labels.csv"
    table = pd.read_csv(given.data / "metadata.csv").drop(columns=["finding_labels"])
    names = {"label_abnormal": "abnormality", "orig_width": "width", "orig_height": "height"}
    table.rename(columns=names).to_csv(labels, index=False)
    pictures = given.data / "nih64.npz"
    medical.pretrain(pictures, out=given.folder / "base", epochs=given.epochs, labels=labels, finding="abnormality")
    tuned = medical.finetune(
        pictures, model=given.folder / "base", labels=labels, out=given.folder / "model", finding="abnormality"
    )
    table[table.split == "test"].rename(columns=names).to_csv(given.folder / "test.csv", index=False)
    done = auditing.audit(
        pictures, model=given.folder / "model", labels=given.folder / "test.csv", out=given.folder / "audit",
        least=given.least,
    )  # fmt: skip
    said = json.loads((given.folder / "audit" / "audit.json").read_text())
    given.out.mkdir(parents=True, exist_ok=True)
    facts = {"hardware": describe_hardware(), "least": given.least, "labels": tuned.details["labels"], **said}
    (given.out / "audit.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (given.out / "audit.md").write_text(_markdown(facts, done.headline), encoding="utf-8")


def _markdown(facts: dict[str, object], headline: str) -> str:
    groups, gaps, probes = facts["groups"], facts["gaps"], facts["representation"]
    assert isinstance(groups, list)
    assert isinstance(gaps, list)
    assert isinstance(probes, list)
    lines = [
        "# An audit on real adults",
        "",
        *(str(__doc__).strip().splitlines()[4:]),
        "",
        f"{facts['labels']} labels. {headline}",
        "",
        f"## Groups (at least {facts['least']} patients of either class, else nothing is said)",
        "",
        "| group | pictures | patients | " + " | ".join(RATES) + " |",
        "|---|---|---|" + "---|" * len(RATES),
    ]
    for group in groups:
        cells = [_cell(group["estimates"].get(rate)) for rate in RATES]
        what = group["value"] if group["attribute"] == "all" else f"{group['attribute']}: {group['value']}"
        lines.append(f"| {what} | {group['rows']} | {group['units']} | " + " | ".join(cells) + " |")
    lines += ["", f"{facts['pairs_compared']} comparisons of groups; the surest gaps:", ""]
    lines += ["| attribute | metric | groups | difference | p | p (Holm) |", "|---|---|---|---|---|---|"]
    for gap in sorted(gaps, key=lambda gap: gap["p"])[:8]:
        lines.append(
            f"| {gap['attribute']} | {gap['metric']} | {gap['higher']} above {gap['lower']} | "
            f"{_cell(gap['difference'])} | {gap['p']:.3f} | {gap['adjusted']:.3f} |"
        )
    lines += ["", "## What the features tell before any label is used", "", "| asked for | AUROC | by chance, 95 % |"]
    lines += ["|---|---|---|"]
    for probe in probes:
        said = _cell(probe.get("auroc")) if "auroc" in probe else str(probe.get("note"))
        chance = f"{probe['chance_95']:.3f}" if "chance_95" in probe else ""
        lines.append(f"| {probe['name']} | {said} | {chance} |")
    lines += ["", f"Hardware: {facts['hardware']}."]
    return "\n".join(lines) + "\n"


def _cell(estimate: object) -> str:
    if not isinstance(estimate, dict):
        return ""
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


if __name__ == "__main__":
    main()
