"""What MLflow runs when it loads a packaged model: this file is copied beside the weights, nothing is pickled."""

from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from mlflow.pyfunc.model import PythonModelContext

from unlabeled.core.errors import DataError
from unlabeled.medical.serving import Service


class PneumoniaService(PythonModel):
    """MLflow's side of :class:`~unlabeled.medical.serving.Service`."""

    def load_context(self, context: PythonModelContext) -> None:
        self.service = Service.load(context.artifacts["model"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        try:
            return self.service.answer(model_input)
        except DataError as error:
            # Of this kind a server makes a plain 400; of any other, a stack trace.
            raise MlflowException.invalid_parameter_value(str(error)) from None


set_model(PneumoniaService())
