"""The model as MLflow loads it: this file is copied into the registered model and runs from there.

It therefore imports nothing of this project, and no torch: who serves the model needs openvino, numpy, pandas, mlflow.

    model = mlflow.pyfunc.load_model("models:/chexscale@champion")
    model.predict(pixels)                              # (n, S, S) uint8 -> DataFrame, a probability per finding
    model.predict(pixels, params={"maps": True})       # a dict of arrays, "maps" (n, findings, s, s) among them

`distance` is how far an image is from the training data; above model.unwrap_python_model().distance_threshold its
probabilities mean nothing. Research use only, not for clinical use.
"""

import json
from pathlib import Path

import mlflow
import numpy as np
import openvino as ov
import pandas as pd


class ChestXrayModel(mlflow.pyfunc.PythonModel):
    """Grey chest radiographs to one probability per finding, and on request to class activation maps."""

    def load_context(self, context) -> None:
        """Compiles the INT8 graph for this machine's CPU, with the options under which the gate measured it."""
        core = ov.Core()
        graph = core.read_model(Path(context.artifacts["graphs"]) / "int8" / "model.xml")
        properties = json.loads(graph.get_rt_info(["chexscale"]).value)
        self.findings = properties["findings"]
        self.distance_threshold = properties["distance_threshold"]
        self.compiled = core.compile_model(
            graph, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        )

    def predict(self, context, model_input: np.ndarray, params: dict | None = None):
        """model_input: (n, S, S) uint8, 0 black. params: `maps` adds the class activation maps, in logits."""
        # A request of its own: a server may call from several threads.
        outputs = self.compiled.create_infer_request().infer(np.ascontiguousarray(model_input))
        if (params or {}).get("maps"):
            return {name: outputs[name].copy() for name in ("probabilities", "distances", "maps")}
        table = pd.DataFrame(outputs["probabilities"], columns=self.findings)
        return table.assign(distance=outputs["distances"])


mlflow.models.set_model(ChestXrayModel())
