"""From a checkpoint to a measured, quantised, registered model, and what that model says of images."""

import sys

# openvino's converter and nncf report each use to their makers without asking, unless this package is absent.
sys.modules["openvino_telemetry"] = None
