"""``unlabeled medical intake``."""

from pathlib import Path
from typing import Annotated

import typer

from unlabeled.pipelines._cost import PNEUMONIA, Findings, Ocr
from unlabeled.pipelines.jobs import Outcome


def intake(
    source: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of DICOM files, searched to its depths, whatever their names.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the store; it appears when it is complete.")] = Path(
        "medical-store"
    ),
    site_key: Annotated[
        Path | None,
        typer.Option(
            help="File of the site's secret key, made where missing (default: site.key beside --out). The same key "
            "gives a patient the same pseudonym in every store; who has it can find patients again."
        ),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            help="CSV that says which patient stands behind which pseudonym (default: OUT-ledger.csv beside --out); "
            "OUT-files.csv, which says which file is which, is written beside it."
        ),
    ] = None,
    size: Annotated[int, typer.Option(help="Rows and columns of the pictures.", min=16, max=2048)] = 128,
    site: Annotated[
        str,
        typer.Option(
            help="What the column 'site' is to say of these pictures (default: a stand-in for each InstitutionName)."
        ),
    ] = "",
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a column label (or of the finding) and one that names files, patients (patient_id), studies "
            "(StudyInstanceUID) or accession numbers as the hospital knows them: translated into the store's "
            "labels.csv. Columns age, sex, view, device and site fill in what tags do not say, and win over them; a "
            "film of which no tag says that it is frontal is refused all the same."
        ),
    ] = None,
    finding: Findings = [PNEUMONIA],  # noqa: B006 - never changed
    dicom: Annotated[bool, typer.Option("--dicom", help="Also write de-identified DICOM files to OUT/dicom.")] = False,
    ocr: Ocr = False,
    workers: Annotated[
        int | None, typer.Option(help="Processes that read files (default: one a core, which is the most).", min=1)
    ] = None,
) -> Outcome:
    """Take a hospital's folder in: check, de-identify and reduce every file to a store that the other commands read.

    Each file that is found has a row in OUT/gate.csv: kept, flagged or refused, with the reason. Interrupted, the same
    command goes on.
    """
    from unlabeled.pipelines import _medical_intake as job

    return job.intake(
        source, out=out, site_key=site_key, ledger=ledger, size=size, site=site, labels=labels,
        findings=finding, dicom=dicom, ocr=ocr, workers=workers,
    )  # fmt: skip
