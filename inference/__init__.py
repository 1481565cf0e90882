"""From a checkpoint to a measured, quantised, registered model, and what that model says of images."""

import sys

# openvino's converter and nncf tell their makers of each use without asking, unless this package is absent.
sys.modules["openvino_telemetry"] = None
