"""One model: its properties, its forms (OpenVINO, ONNX, torch, MLflow), and the registry that holds its versions."""
