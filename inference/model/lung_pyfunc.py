"""A lung network as MLflow loads it. This file is copied into the registered model and runs from there.

    model = mlflow.pyfunc.load_model("models:/chexscale-lungs@champion")
    model.predict(pixels)                              # (n, S, S) uint8 -> logits of lung, (n, S, S) float32

It imports nothing from this project. Research use only, not for clinical use.
"""

from pathlib import Path

import mlflow
import numpy as np
import openvino as ov


class LungModel(mlflow.pyfunc.PythonModel):
    """Turns films into one logit per pixel: from 0 on it is lung."""

    def load_context(self, context) -> None:
        """Compiles the graph for this machine's CPU."""
        graph = Path(context.artifacts["lungs"]) / "model.xml"
        self.compiled = ov.Core().compile_model(str(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def predict(self, context, model_input: np.ndarray, params: dict | None = None):
        """Predicts a batch, uint8, 0 is black."""
        request = self.compiled.create_infer_request()
        return request.infer([np.ascontiguousarray(model_input)])["lungs"].copy()


mlflow.models.set_model(LungModel())
