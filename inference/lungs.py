"""Exports the network that training/lungs.py has trained, quantises it, and registers it under its own name.

    python inference/lungs.py                                                         the workspace of conf/demo.yaml
    python etl/preprocess.py --etl.crop lungs --etl.lungs runs/demo/lungs/model ...   crops by it

It reads lungs/network.pt and the version of the table that it was trained on. It writes lungs/model/ (the graph, and
lungs.json, which says how well it finds lungs) and a version of lungs.registered_model. The graph is INT8 if its
overlap with the masks of the validation split is at most 0.01 below FP32's, otherwise FP32.
"""

from conf.arguments import load_settings
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("lungs", "etl.table")


def main() -> None:
    settings = load_settings("Exports, quantises and registers the network that finds the lungs.", reads=READS)
    workspace = Workspace.of(settings)
    with quick_imports():
        from inference.candidate.lung_network import run
    run(settings, workspace)


if __name__ == "__main__":
    run_command(main)
