"""Commands side by side, as real processes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conf.errors import InputError
from jobs.studies.side_by_side import Job, Queue, last_words, places

# Writes its name when it begins and when it ends, and ends at once on SIGTERM, as a training does.
WORK = """
import os, signal, sys, time
name, seconds, code = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
def stop(*_):
    print(name, "stopped", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print(name, "began on", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
time.sleep(seconds)
if code:
    print("error: something is wrong")
    print("see above")
sys.exit(code)
"""
SWEEP = """
import sys
from pathlib import Path
from jobs.studies.side_by_side import Job, Queue
jobs = [Job(name, [[sys.executable, "-c", sys.argv[2], name, "60", "0"]], Path(sys.argv[1]) / name) for name in "ab"]
queue = Queue(jobs, [{}], lambda job: None, lambda job: print(job.name, job.code, flush=True))
sys.exit(queue.run())
"""


def work(folder: Path, name: str, seconds: float = 0.0, *codes: int) -> Job:
    return Job(name, [[sys.executable, "-c", WORK, name, str(seconds), str(code)] for code in codes], folder / name)


def test_one_that_fails_stops_its_own_commands_and_no_other(tmp_path):
    jobs = [work(tmp_path, "a", 0, 0, 0), work(tmp_path, "b", 0, 3, 0), work(tmp_path, "c", 0, 0)]
    began, ended = [], []
    assert Queue(jobs, [{}], began.append, ended.append).run() == 0
    assert [job.name for job in began] == [job.name for job in ended] == ["a", "b", "c"]
    assert [job.code for job in jobs] == [0, 3, 0]
    assert [job.log.read_text().count("began") for job in jobs] == [2, 1, 1]
    assert last_words(jobs[1]) == "error: something is wrong"
    assert last_words(jobs[0]) == "a began on None"


def test_each_place_has_one_at_a_time_and_all_are_used(tmp_path):
    jobs, running, most = [work(tmp_path, name, 0.3, 0) for name in "abcd"], set(), []

    def began(job: Job) -> None:
        running.add(job.name)
        most.append(len(running))

    queue = Queue(jobs, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "3"}], began, lambda job: None)
    queue.ended = lambda job: running.discard(job.name)
    queue.run()
    assert max(most) == 2
    assert {job.log.read_text().split()[-1] for job in jobs} == {"0", "3"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 15), (signal.SIGINT, 2)])
def test_a_signal_has_the_running_one_end_by_itself_and_starts_no_other(tmp_path, number, code):
    with subprocess.Popen([sys.executable, "-c", SWEEP, tmp_path, WORK], stdout=subprocess.PIPE, text=True) as sweep:
        wait_for(tmp_path / "a", "began")
        sweep.send_signal(number)
        said, _ = sweep.communicate(timeout=60)
    assert (sweep.returncode, said) == (code, "a 143\n")
    assert "a stopped" in (tmp_path / "a").read_text()
    assert not (tmp_path / "b").exists()


def test_if_the_queue_is_killed_the_running_one_ends_by_itself(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SWEEP, tmp_path, WORK]) as sweep:
        wait_for(tmp_path / "a", "began")
        sweep.kill()
    wait_for(tmp_path / "a", "a stopped")


def wait_for(log: Path, words: str) -> None:
    end = time.monotonic() + 60
    while not (log.exists() and words in log.read_text()):
        assert time.monotonic() < end, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)


def test_the_reason_is_that_of_this_job_not_of_an_earlier_one(tmp_path):
    for codes, said in (((3,), "error: something is wrong"), ((0,), "a began on None")):
        job = work(tmp_path, "a", 0, *codes)
        Queue([job], [{}], lambda job: None, lambda job: None).run()
        assert last_words(job) == said
    job.code = 137
    assert "memory" in last_words(job)


def test_places_share_out_gpus_and_cores(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(12))
    assert places(1, 0, 0) == places(1, 1, 0) == [{}]
    assert places(1, 2, 0) == [{"OMP_NUM_THREADS": "6"}] * 2
    assert [tuple(place.values()) for place in places(1, 0, 3)] == [("0", "4"), ("1", "4"), ("2", "4")]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in places(2, 0, 5)] == ["0,1", "2,3"]
    assert len(places(1, 2, 8)) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert places(1, 0, 2) == [{"CUDA_VISIBLE_DEVICES": "4"}, {"CUDA_VISIBLE_DEVICES": "GPU-7"}]
    for wrong, said in (((3, 0, 2), "jobs.num_ranks is 3, but 2 GPUs"), ((1, 3, 2), "at most 2"), ((1, -1, 0), "-1")):
        with pytest.raises(InputError, match=said):
            places(*wrong)
