"""The model as MLflow loads it. This file is copied into the registered model and runs from there.

It therefore imports nothing from this project, and no torch: to serve the model, openvino, numpy, pandas and mlflow are
enough.

    model = mlflow.pyfunc.load_model("models:/chexscale@champion")
    model.predict(pixels)                              # (n, S, S) uint8 -> DataFrame, a probability per finding
    model.predict(pixels, params={"maps": True})       # a dict of arrays, "maps" (n, findings, s, s) among them

A model of colour images takes (n, S, S, 3). One that takes age, sex and view, as its signature says, gets a dict:

    model.predict({"pixels": pixels, "attributes": attributes})    # (n, 3) float32; -1 is unknown

`attributes` are the age in years and the places of sex and view in the lists `codes` of
model.unwrap_python_model().attributes, which also says on which ages it was trained.

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
    """Turns chest radiographs into one probability per finding and, on request, class activation maps."""

    def load_context(self, context) -> None:
        """Compiles the INT8 graph for this machine's CPU, with the options that the gate measured it with."""
        core = ov.Core()
        graph = core.read_model(Path(context.artifacts["graphs"]) / "int8" / "model.xml")
        properties = json.loads(graph.get_rt_info(["chexscale"]).value)
        self.findings = properties["findings"]
        self.distance_threshold = properties["distance_threshold"]
        self.attributes = properties["attributes"]
        self.compiled = core.compile_model(
            graph, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        )

    # Or a dict of arrays, of which MLflow knows no type hint; it warns of a hint that it does not know, and of none.
    def predict(self, context, model_input: np.ndarray, params: dict | None = None):
        """Predicts a batch. model_input: the pixels, uint8, 0 is black, or a dict of the graph's inputs.

        params: `maps` adds the class activation maps, in logits.
        """
        inputs = model_input if isinstance(model_input, dict) else {"pixels": model_input}
        # Each call has its own request, because a server may call from several threads.
        arrays = {name: np.ascontiguousarray(part) for name, part in inputs.items()}
        outputs = self.compiled.create_infer_request().infer(arrays)
        if (params or {}).get("maps"):
            return {name: outputs[name].copy() for name in ("probabilities", "distances", "maps")}
        table = pd.DataFrame(outputs["probabilities"], columns=self.findings)
        return table.assign(distance=outputs["distances"])


mlflow.models.set_model(ChestXrayModel())
