"""A fine-tuned model as rows in, rows out: what a server or a table job asks of it."""

import base64
import binascii
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlabeled.core.errors import DataError
from unlabeled.medical import _pictures
from unlabeled.medical._decisions import decide, held_out
from unlabeled.medical.dicom import Refused
from unlabeled.medical.images import ImageSet
from unlabeled.medical.model import PneumoniaModel

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "image"
ANSWERED = (
    "probability", "call", "threshold", "calibrated", "calibrated_low", "calibrated_high", "sensitive_call",
    "sensitive_threshold", "decision", "reason", "ood_p_value",
)  # fmt: skip
EXPECTED = "a base64 string of a PNG, JPEG or DICOM file, or a nested array of 8-bit numbers"


class Service:
    """Answers tables of pictures.

    Args:
        model: fine-tuned.

    Raises:
        DataError: the model has not seen labels yet, or keeps no held-out predictions to decide with.
    """

    def __init__(self, model: PneumoniaModel) -> None:
        held_out(model)
        self.model = model

    @classmethod
    def load(cls, folder: str | Path) -> "Service":
        """From a model folder.

        Raises:
            CheckpointError: missing, damaged, or of another kind.
        """
        return cls(PneumoniaModel.load(folder))

    def answer(self, table: "pd.DataFrame") -> "pd.DataFrame":
        """One row a picture, as ``unlabeled medical predict`` writes it: ``probability`` of pneumonia, the ``call`` and
        the ``threshold`` behind it, the ``calibrated`` probability with its interval, ``sensitive_call`` (for a
        sensitivity of 95 %), the ``decision`` at an error rate of 5 % with the ``reason`` of a referral, and
        ``ood_p_value`` (nan where the model cannot tell).

        Args:
            table: a column ``image``. Each cell is the file's bytes in base64 (PNG, JPEG, DICOM; read as
                :func:`~unlabeled.medical.readers.read_images` reads files), or a nested array (S, S) of 8-bit numbers,
                S the model's ``image_size``, bone bright.

        Raises:
            DataError: the column is missing, or a row cannot be used (says which, and why).
        """

        if COLUMN not in table.columns:
            raise DataError(f"expected the column '{COLUMN}', got {', '.join(map(str, table.columns)) or 'none'}")
        if not len(table):
            raise DataError("there are no rows")
        pixels = np.stack([self._picture(cell, row=row) for row, cell in enumerate(table[COLUMN])])
        ids = np.array([str(row) for row in range(len(pixels))])
        return decide(self.model, ImageSet(images=pixels, ids=ids, patients=ids, framing=self.model.framing)).table[
            list(ANSWERED)
        ]

    def example(self) -> "pd.DataFrame":
        """One row of noise, as a PNG file in base64."""
        import pandas as pd
        from PIL import Image

        size = self.model.image_size
        noise = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, format="PNG")
        return pd.DataFrame({COLUMN: [base64.b64encode(file.getvalue()).decode()]})

    def _picture(self, cell: Any, *, row: int) -> NDArray[np.uint8]:
        if cell is None or (isinstance(cell, float) and np.isnan(cell)):  # how tables hold nothing
            raise DataError(f"row {row}: {COLUMN} is missing, expected {EXPECTED}")
        try:
            if isinstance(cell, str):
                frame = _pictures.Frame(self.model.image_size, self.model.framing)
                return _pictures.from_bytes(base64.b64decode(cell, validate=True), frame).pixels
            return self._array(cell)
        except (binascii.Error, ValueError):
            raise DataError(f"row {row}: {COLUMN} is not base64: expected {EXPECTED}") from None
        except Refused as refused:
            raise DataError(f"row {row}: {refused}") from None

    def _array(self, cell: Any) -> NDArray[np.uint8]:
        size = self.model.image_size
        try:
            # Rows come as lists, and as objects where a table was read from Parquet.
            values = np.array([np.asarray(line, dtype=np.float64) for line in cell])
        except (TypeError, ValueError):
            raise Refused(f"{COLUMN} is {type(cell).__name__}, expected {EXPECTED}") from None
        if values.shape != (size, size):
            raise Refused(f"{COLUMN} is an array of shape {values.shape}, expected ({size}, {size})")
        if not ((values >= 0) & (values <= 255) & (values == np.rint(values))).all():
            raise Refused(f"{COLUMN} holds values that are not whole numbers from 0 to 255")
        return values.astype(np.uint8)
