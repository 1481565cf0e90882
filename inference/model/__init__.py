"""One model: its properties, its forms (OpenVINO, ONNX, torch, MLflow) and the registry of its versions."""
