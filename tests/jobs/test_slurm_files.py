"""The command lines of jobs/slurm parse with the settings and arguments of the commands that they call."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from conf.arguments import add_resume, load_arguments

PROJECT = Path(__file__).parents[2]
FILES = sorted((PROJECT / "jobs/slurm").glob("*.sbatch"))
# Command -> adds its own arguments.
STAGES = {
    "etl/preprocess.py": lambda parser: None,
    "training/train.py": add_resume,
    "inference/register.py": lambda parser: None,
}


def commands_of(file: Path, folder: Path, *given: str, nodes: int = 1, launcher: str = "torchrun") -> list[list[str]]:
    """The command lines that the job would give to srun."""
    for name in ("torchrun", "python"):
        (folder / "bin").mkdir(exist_ok=True)
        (folder / "bin" / name).touch(0o755)
    script = f'scontrol() {{ printf "node%s\\n" $(seq {nodes}); }}\n'
    # Written to a descriptor of its own, because the jobs write Spark's logs to files.
    script += "srun() { { printf '%q ' \"$@\"; echo; } >&3; echo Registering worker; echo Registering worker; }\n"
    script += f"scancel() {{ :; }}\nsource {shlex.quote(str(file))}"
    environment = {"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": str(PROJECT), "SLURM_JOB_NODELIST": "nodes"}
    environment |= {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "2", "SLURM_ARRAY_TASK_ID": "3"}
    environment |= {"CHEXSCALE_VENV": str(folder), "CHEXSCALE_LAUNCHER": launcher}
    told = folder / "told"
    done = subprocess.run(
        ["bash", "-c", f"exec 3>{shlex.quote(str(told))}\n{script}", "bash", *given],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return [shlex.split(line) for line in told.read_text().splitlines()]


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
@pytest.mark.parametrize("launcher", ["torchrun", "horovodrun"])
def test_each_command_line_parses_with_the_products_own_settings(file, launcher, nodes, tmp_path):
    example = re.search(rf"sbatch jobs/slurm/{file.name} (.*)", file.read_text(encoding="utf-8"))[1]
    given = [*shlex.split(example.replace("--etl.source DIR", "")), "--etl.source", "a folder"]
    parsed = 0
    for words in commands_of(file, tmp_path, *given, nodes=nodes, launcher=launcher):
        command = next((word for word in words if word in STAGES), None)
        if command is None:
            continue
        assert (PROJECT / command).is_file()
        settings, _ = load_arguments("", "", STAGES[command], words[words.index(command) + 1 :])
        assert settings.etl.source == "a folder"
        parsed += 1
        if file.stem == "study":
            assert (settings.workspace, settings.training.seed) == ("runs/study/seed-3", 3)
    assert parsed == (3 if file.stem == "pipeline" else 1)
