"""The bundle and its tasks: what Databricks' own models, the product's parsers and a running Spark session say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jobs.chexscale import FILES, CommandFailed, task
from tests.etl.spark_commands import ENVIRONMENT, PROJECT, QUICK_START
from tests.in_process import run_here
from tests.jobs.locks import asked, blocks, names

BUNDLE = PROJECT / "jobs" / "databricks" / "databricks.yml"
CONTENT = yaml.safe_load(BUNDLE.read_text(encoding="utf-8"))
JOB = CONTENT["resources"]["jobs"]["chexscale"]
TASKS = {one["task_key"]: one for one in JOB["tasks"]}
GIVEN = {
    "workspace.file_path": str(PROJECT),
    "workspace.current_user.userName": "you@hospital.org",
    "var.source": "/Volumes/main/chest/films",
    "var.table": "/Volumes/main/chest/tables",
}
STRICTLY = """
import sys, yaml
from databricks.bundles.jobs import Job
Job.from_dict(yaml.safe_load(sys.stdin))
"""


def filled(text: str) -> str:
    """The text with its variables replaced, by their defaults or by what a user gives."""
    defaults = {f"var.{name}": str(one.get("default", "")) for name, one in CONTENT["variables"].items()}
    while found := re.search(r"\$\{([\w.]+)\}", text):
        value = GIVEN.get(found[1]) or defaults[found[1]]
        text = text.replace(found[0], value)
    return text


def parse_strictly(job: str) -> subprocess.CompletedProcess:
    python = os.environ.get("CHEXSCALE_DATABRICKS_PYTHON")
    if not python:
        pytest.skip("CHEXSCALE_DATABRICKS_PYTHON does not name a Python with databricks-bundles and PyYAML")
    return subprocess.run([python, "-c", STRICTLY], input=job, capture_output=True, text=True, timeout=60)


def test_databricks_own_models_take_the_job_and_refuse_an_unknown_field():
    job = yaml.safe_dump(JOB)
    done = parse_strictly(job)
    assert done.returncode == 0, done.stderr
    assert parse_strictly(job.replace("entry_point", "entry_pont")).returncode
    assert parse_strictly(job.replace("max_retries: 2", "max_retries: twice")).returncode


def test_every_variable_is_declared_and_used():
    text = BUNDLE.read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{var\.(\w+)\}", text)) == CONTENT["variables"].keys()
    assert all(one["description"] for one in CONTENT["variables"].values())


def test_tasks_follow_each_other_on_clusters_and_files_that_exist():
    clusters = {cluster["job_cluster_key"]: cluster["new_cluster"] for cluster in JOB["job_clusters"]}
    assert list(TASKS) == ["etl", "training", "register"]
    before = [one["task_key"] for name in ("training", "register") for one in TASKS[name]["depends_on"]]
    assert before == ["etl", "training"]
    # Registering reads what training has left on the disk of its only node.
    assert TASKS["training"]["job_cluster_key"] == TASKS["register"]["job_cluster_key"]
    assert clusters["training"]["num_workers"] == 0
    for one in TASKS.values():
        assert one["job_cluster_key"] in clusters
        requirements, wheel = one["libraries"]
        assert (BUNDLE.parent / requirements["requirements"]).exists()
        assert (BUNDLE.parent / wheel["whl"]).parent == BUNDLE.parent / CONTENT["artifacts"]["chexscale"][
            "path"
        ] / "dist"
    assert {cluster["spark_version"] for cluster in clusters.values()} == {"17.3.x-scala2.13"}
    for folder in CONTENT["sync"]["paths"]:
        assert (BUNDLE.parent / folder).is_dir()


@pytest.mark.parametrize("name", TASKS)
def test_the_command_understands_the_parameters_of_its_task(name):
    wheel_task = TASKS[name]["python_wheel_task"]
    setup = (PROJECT / "setup.py").read_text(encoding="utf-8")
    assert f'"{wheel_task["entry_point"]}=jobs.chexscale:task"' in setup
    assert f'name="{wheel_task["package_name"]}"' in setup
    word, *parameters = map(filled, wheel_task["parameters"])
    done = run_here(PROJECT / FILES[word], *parameters, "--print_config")
    assert done.code == 0, done.stderr
    settings = yaml.safe_load(done.stdout)
    assert settings["etl"]["table"] == GIVEN["var.table"] and settings["workspace"] == "/local_disk0/chexscale"
    if name != "etl":
        assert settings["tracking_server"] == "databricks"


def test_the_etl_lock_is_a_part_of_the_one_lock_without_the_runtimes_own_packages():
    lock, of_the_runtime = "jobs/databricks/etl.lock", {"pyspark", "delta-spark"}
    assert blocks(lock) < blocks("requirements.lock")
    assert names(lock).isdisjoint({*of_the_runtime, "py4j"})
    assert asked(["etl"]) - names(lock) == of_the_runtime


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the first parameter of the task is '', expected one of: pipeline, etl"),
        (["maintain", "--etl.nothing=1"], "maintain ended with exit code 2"),
        (["spark_train"], "jobs.num_ranks is 0"),
    ],
)
def test_a_task_that_fails_raises_and_exits_with_nothing(words, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["chexscale", *words])
    with pytest.raises(CommandFailed, match=message):
        task()


def test_a_task_that_succeeds_returns(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["chexscale", "register", "--help"])
    assert task() is None
    assert "inference.max_mean_drop" in capsys.readouterr().out


# As Databricks does: a session is there before the task, with a static setting that nobody can change, and stays.
PROGRAM = """
import sys
from pyspark.sql import SparkSession
from jobs.chexscale import CommandFailed, task

session = SparkSession.builder.master("local[2]").config("spark.ui.showConsoleProgress", "true").getOrCreate()
application = session.sparkContext.applicationId
workspace, source, table = sys.argv[1:]

def run(*words):
    places = [f"--workspace={workspace}", f"--etl.table={table}"]
    sys.argv = ["chexscale", *words, *places, "--etl.sizes_px=[32]", "--etl.rows_per_row_group=5"]
    task()

run("etl", f"--etl.source={source}", "--etl.quality.inverted=false", "--etl.quality.clipped=false",
    "--etl.quality.min_side_px=0")
training = ["--jobs.num_ranks=2", "--training.size_px=32", "--training.epochs=1", "--training.batch_size=2"]
run("spark_train", "--resume=auto", "--training.model=simple_cnn", *training)
try:
    run("spark_train", "--resume=auto", "--training.model=nonsense", *training)
except CommandFailed as error:
    print("as it should be,", error)
assert session.sparkContext.applicationId == application
assert session.conf.get("spark.ui.showConsoleProgress") == "true"
print(session.range(5).count(), "rows: the session still runs")
"""


@pytest.mark.clusters
@pytest.mark.slow
def test_tasks_work_in_a_session_that_runs_already_and_leave_it_running(tmp_path, nih_folder):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    places = [str(tmp_path / "workspace"), str(nih_folder.root), str(tmp_path / "tables")]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(PROJECT), "JAVA_TOOL_OPTIONS": QUICK_START}
    done = subprocess.run(
        [sys.executable, str(program), *places], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rows: the session still runs" in done.stdout
    assert re.search(r"as it should be, rank \d on .* ended with exit code 2", done.stdout), done.stdout
    assert (Path(places[0]) / "checkpoints" / "best.pt").exists()
