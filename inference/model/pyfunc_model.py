"""The model as MLflow loads it. This file is copied into the registered model and runs from there.

It therefore imports nothing from this project, and no torch: to serve the model, openvino, numpy, pandas and mlflow are
enough.

    model = mlflow.pyfunc.load_model("models:/chexscale@champion")
    model.predict(pixels)                              # (n, S, S) uint8 -> DataFrame, a probability per finding
    model.predict(pixels, params={"maps": True})       # a dict of arrays, "maps" (n, findings, s, s) among them

`distance` says how far an image is from the training data. If it is above
model.unwrap_python_model().distance_threshold, the image's probabilities mean nothing. Research use only, not for
clinical use.
"""

import json
from pathlib import Path

import mlflow
import numpy as np
import openvino as ov
import pandas as pd


class ChestXrayModel(mlflow.pyfunc.PythonModel):
    """Turns grey chest radiographs into one probability per finding and, on request, class activation maps."""

    def load_context(self, context) -> None:
        """Compiles the INT8 graph for this machine's CPU, with the options that the gate measured it with."""
        core = ov.Core()
        graph = core.read_model(Path(context.artifacts["graphs"]) / "int8" / "model.xml")
        properties = json.loads(graph.get_rt_info(["chexscale"]).value)
        self.findings = properties["findings"]
        self.distance_threshold = properties["distance_threshold"]
        self.compiled = core.compile_model(
            graph, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        )

    def predict(self, context, model_input: np.ndarray, params: dict | None = None):
        """Predicts a batch, (n, S, S) uint8, 0 is black. params: `maps` adds the class activation maps, in logits."""
        # Each call has its own request, because a server may call from several threads.
        outputs = self.compiled.create_infer_request().infer(np.ascontiguousarray(model_input))
        if (params or {}).get("maps"):
            return {name: outputs[name].copy() for name in ("probabilities", "distances", "maps")}
        table = pd.DataFrame(outputs["probabilities"], columns=self.findings)
        return table.assign(distance=outputs["distances"])


mlflow.models.set_model(ChestXrayModel())
