"""Which precision a training takes: asked for, begun with, or fast on the devices of all ranks."""

from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conf.settings import Settings, Training
from conf.workspace import Workspace
from etl.contract.version import TableVersion
from tests.conftest import SIZE_PX, make_card
from tests.training.toy_training import make_state
from training.loop.task import Task
from training.ranks.collectives import Collectives
from training.ranks.topology import Topology
from training.reading.plan import Plan, Split
from training.start.precision import agree, multiplies_bf16_fast, settle_precision

ALONE = Collectives(Topology.detect("cpu", {}))
YES, NO = (True, "the CPU of rank {} has AMX"), (False, "the CPU of rank {} has no AMX")


def make_task(**changes) -> Task:
    settings, split = Settings(training=Training(**changes)), Split("val", [], [2], SIZE_PX)
    table = TableVersion("", make_card(["A"], [1], [2]))
    return Task(settings, Workspace.of(settings), table, Plan(split, 1, 1, 1), split, split, None)


@pytest.fixture
def amx(monkeypatch):
    """Makes torch find these capabilities of the CPU."""
    return lambda **found: monkeypatch.setattr(
        "torch.cpu.get_capabilities", lambda: {"architecture": "x86_64", **found}
    )


def test_auto_takes_bf16_on_a_cpu_with_amx_and_says_why(amx, capsys):
    amx(amx_bf16=True, amx_tile=True)
    assert settle_precision(make_task(), ALONE).settings.training.precision == "bf16"
    assert capsys.readouterr().out == "Precision bf16: the CPU has AMX\n"


@pytest.mark.parametrize(
    "found", [{}, {"amx_bf16": False}, {"amx_tile": True, "amx_int8": True}, {"avx512_bf16": True}]
)
def test_auto_takes_fp32_on_any_other_cpu(amx, capsys, found):
    amx(**found)
    assert settle_precision(make_task(), ALONE).settings.training.precision == "fp32"
    assert capsys.readouterr().out == "Precision fp32: the CPU has no AMX\n"


def test_torch_knows_this_cpu():
    assert "architecture" in torch.cpu.get_capabilities()
    fast, reason = multiplies_bf16_fast(torch.device("cpu"))
    with open("/proc/cpuinfo") as file:
        assert fast == ("amx_bf16" in file.read().split())
    assert reason == ("the CPU has AMX" if fast else "the CPU has no AMX")


@pytest.mark.parametrize(
    ("capability", "fast"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((8, 9), True), ((12, 0), True)]
)
def test_a_gpu_is_fast_from_ampere_on(monkeypatch, capability, fast):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: capability[0] >= 8)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    found, reason = multiplies_bf16_fast(torch.device("cuda", 0))
    assert found == fast
    assert "Some GPU" in reason and "{}.{}".format(*capability) in reason


def test_gaudi_is_fast():
    assert multiplies_bf16_fast(torch.device("hpu"))[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_is_asked_for_is_taken_on_any_device(amx, precision):
    amx(amx_bf16=precision == "fp32")
    assert settle_precision(make_task(precision=precision), ALONE).settings.training.precision == precision


@pytest.mark.parametrize("began", ["fp32", "bf16", "fp16"])
def test_a_resumed_training_goes_on_in_the_precision_that_it_began_with(amx, capsys, began):
    amx(amx_bf16=began == "fp32")
    task = make_task()
    state = make_state(settings=asdict(replace(task.settings.training, precision=began)))
    assert settle_precision(replace(task, interrupted=state), ALONE).settings.training.precision == began
    assert capsys.readouterr().out == f"Precision {began}: the interrupted training began with it\n"


def test_nothing_else_of_the_settings_changes(amx):
    amx(amx_bf16=True)
    task = make_task(seed=3)
    settled = settle_precision(task, ALONE)
    assert replace(settled.settings, training=replace(settled.settings.training, precision="auto")) == task.settings
    assert task.settings.training.precision == "auto"


@given(st.lists(st.booleans(), min_size=1, max_size=16))
def test_bf16_only_if_every_rank_multiplies_it_fast(fast):
    answers = [((YES if one else NO)[0], (YES if one else NO)[1].format(rank)) for rank, one in enumerate(fast)]
    precision, reason = agree(answers)
    assert precision == ("bf16" if all(fast) else "fp32")
    # The reason is that of the first rank that decides.
    assert reason.startswith(answers[0 if all(fast) else fast.index(False)][1])


def test_a_slow_rank_is_named():
    answers = [(True, "the CPU has AMX"), (True, "the CPU has AMX"), (False, "the CPU has no AMX")]
    assert agree(answers) == ("fp32", "the CPU has no AMX (rank 2)")
    assert agree(answers[:2]) == ("bf16", "the CPU has AMX")
    assert agree([NO, NO])[1] == NO[1]
