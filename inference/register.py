"""Exports the best checkpoint, quantises it, measures every precision on the test split, gates and registers it.

    python inference/register.py                                      the workspace of conf/demo.yaml
    python inference/register.py --config conf/nih.yaml               the workspace of another scenario
    python inference/register.py --inference.max_mean_drop 0.002      a stricter gate

It reads checkpoints/best.pt and the version of the table that the checkpoint was trained on. It writes model/ (fp32,
fp16, int8, onnx, torch, report.json, model_card.json), figures/test_auroc.png and a version of the registered model. A
model that the gate refuses is registered too, as `challenger`; the champion stays the same.
"""

from conf.arguments import load_settings
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace

READS = ("inference", "training.seed", "training.device", "etl.table")


def main() -> None:
    settings = load_settings("Exports the best checkpoint, quantises, measures, gates and registers it.", reads=READS)
    workspace = Workspace.of(settings)
    with quick_imports():
        from inference.candidate.run import run
    run(settings, workspace)


if __name__ == "__main__":
    run_command(main)
