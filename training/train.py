"""Trains on the shards of the last ETL; the same command on one process or many.

    python training/train.py                                     one process
    horovodrun -np 8 python training/train.py                    8 ranks, gradients by Horovod
    torchrun --nproc_per_node 8 training/train.py                8 ranks, gradients by torch.distributed
    horovodrun -np 8 --min-np 4 ... python training/train.py     continues without lost ranks: docs/training.md
    python training/train.py --training.epochs 1 --training.model simple_cnn        a quick try
    python training/train.py --resume                            resumes a training that was killed or stopped
    python training/train.py --resume auto                       resumes, begins, or does nothing if it has finished

It reads <workspace>/shards at the version that card.json names, or the table at etl.table. It writes
checkpoints/best.pt (best validation), checkpoints/last.pt (while it runs), figures/, and one MLflow run in mlflow.db.
On SIGTERM it saves its state and exits with code 143.
"""

from conf.arguments import Resume, add_resume, load_arguments
from conf.errors import run_command
from conf.startup import quick_imports
from conf.workspace import Workspace
from training.ranks.said_once import said_once, shown_by_rank_0

DESCRIPTION = "Trains on the shards of the last ETL."
READS = ("training", "etl.table")


def main() -> None:
    with said_once():
        settings, options = shown_by_rank_0(
            lambda: load_arguments(DESCRIPTION, "[--resume [auto]]", add_resume, reads=READS)
        )
        workspace = Workspace.of(settings)
        with quick_imports():
            from training.start.run import run
        run(settings, workspace, Resume(options.resume))


if __name__ == "__main__":
    run_command(main)
