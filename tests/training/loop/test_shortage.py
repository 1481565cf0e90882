"""A device that is too small or busy ends a training with a message. No GPU is needed: its errors are raised here."""

import re
from contextlib import closing

import pytest
import torch
from torch import nn

from conf.errors import EXIT_INPUT_ERROR, InputError
from conf.settings import Training
from tests.conftest import SIZE_PX
from tests.in_process import run_here
from tests.training.commands import PROJECT
from tests.training.loop.test_loop import make_trainer
from training.loop.shortage import MemoryShortage, explained, memory_of_gpu, training_step
from training.loop.trainer import Trainer

CPU = torch.device("cpu")
GIB = 2**30
# As torch 2.11 words it on a GPU.
CUDA_TEXT = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.05 GiB is "
    "free. See documentation for Memory Management"
)
TOO_LITTLE = [
    torch.OutOfMemoryError(CUDA_TEXT),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    torch.distributed.DistBackendError("NCCL error, unhandled cuda error: Cuda failure 2 'out of memory'"),
    MemoryError(),
]


class Failing(nn.Module):
    """A model whose every pass in the given mode raises the error."""

    def __init__(self, error: Exception, in_training: bool = True):
        super().__init__()
        self.layer, self.error, self.in_training = nn.LazyLinear(2), error, in_training
        self.layer(torch.zeros(1, 32 * 32))

    def forward(self, pixels):
        if self.training == self.in_training:
            raise self.error
        return self.layer(pixels.flatten(1).float())


@pytest.mark.parametrize("error", TOO_LITTLE, ids=str)
def test_a_step_that_is_too_large_says_what_to_lower(small_table, error):
    trainer = make_trainer(small_table, Failing(error), size_px=32)
    with pytest.raises(MemoryShortage) as raised, closing(trainer.train_epoch(0)) as steps:
        list(steps)
    message = str(raised.value)
    assert "a training step of 16 images of 32 x 32 pixels on this rank (training.batch_size)" in message
    assert re.search(r"this machine has [\d.]+ GiB, of which [\d.]+ GiB are available", message)
    assert "--training.accumulation 2" in message and "lower training.batch_size or training.size_px" in message
    assert ("another 2.00 GiB did not fit" in message) == isinstance(error, torch.OutOfMemoryError)


def test_memory_that_this_machine_really_lacks(small_table):
    class Greedy(nn.Linear):
        def forward(self, pixels):
            return super().forward(torch.empty(2**50))

    with pytest.raises(MemoryShortage, match=r"too little memory for a training step .*another \d+ bytes did not fit"):
        list(make_trainer(small_table, Greedy(1, 1)).train_epoch(0))


def test_a_validation_advises_nothing_that_does_not_change_it(small_table):
    trainer = make_trainer(small_table, Failing(torch.OutOfMemoryError(CUDA_TEXT), in_training=False), size_px=32)
    list(trainer.train_epoch(0))
    with pytest.raises(MemoryShortage, match="predicting 64 images of 32 x 32 pixels") as raised:
        trainer.predict(trainer.plan.split)
    assert "training.size_px" in str(raised.value)
    assert "batch_size" not in str(raised.value) and "accumulation" not in str(raised.value)


def test_parts_are_only_made_smaller_while_two_images_are_left():
    assert "--training.accumulation 4" in training_step(Training(accumulation=2), 8)[1]
    assert "accumulation" not in training_step(Training(accumulation=4), 8)[1]
    assert "smaller training.model than densenet121" in training_step(Training(), 2)[1]


def test_the_cause_of_another_error_counts():
    with pytest.raises(MemoryShortage), explained(CPU, "it", "less"):
        try:
            raise torch.OutOfMemoryError(CUDA_TEXT)
        except RuntimeError as error:
            raise RuntimeError("the compiler failed") from error


@pytest.mark.parametrize(
    "words", ["all CUDA-capable devices are busy or unavailable", "CUDA-capable device(s) is/are busy or unavailable"]
)
def test_a_gpu_that_another_process_has_for_itself(words):
    message = r"cuda:0 is busy .*nvidia-smi.*CUDA_VISIBLE_DEVICES"
    with pytest.raises(InputError, match=message) as raised, explained(torch.device("cuda", 0), "it", "less"):
        raise RuntimeError(f"CUDA error: {words}")
    assert not isinstance(raised.value, MemoryShortage)


def test_a_rank_on_a_gpu_may_lack_memory_of_the_machine():
    with pytest.raises(MemoryShortage, match="this machine has"), explained(torch.device("cuda", 0), "it", "less"):
        torch.empty(2**50)


@pytest.mark.parametrize("error", [RuntimeError("an illegal memory access"), ValueError("out of memory"), KeyError(1)])
def test_any_other_error_stays_as_it_is(error):
    with pytest.raises(type(error)) as raised, explained(CPU, "it", "less"):
        raise error
    assert raised.value is error


def test_others_on_the_gpu_are_named_first_if_they_matter():
    place, first = memory_of_gpu("cuda:0 (NVIDIA H100)", 80 * GIB, 1 * GIB, 49 * GIB)
    assert place == (
        "cuda:0 (NVIDIA H100) has 80.0 GiB, of which this process holds 49.0, the driver and other processes 30.0, "
        "and 1.0 are free"
    )
    assert first.startswith("End the other processes")
    assert memory_of_gpu("cuda:0", 80 * GIB, 1 * GIB, 78 * GIB)[1] == ""


def test_a_gpu_without_room_for_cuda_itself():
    # On a machine without a GPU, its memory cannot be asked either.
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    message = "cuda:0 has no room to start CUDA. End its other processes"
    with pytest.raises(MemoryShortage, match=message), explained(torch.device("cuda", 0), "it", "less"):
        raise RuntimeError("CUDA error: out of memory")


def test_the_command_ends_with_the_message_alone(workspace, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Trainer, "_step", fail)
    words = ["--workspace", workspace.root, "--training.model", "simple_cnn", "--training.size_px", SIZE_PX]
    ended = run_here(PROJECT / "training" / "train.py", *words)
    assert ended.code == EXIT_INPUT_ERROR
    assert "error: too little memory for a training step of 16 images" in ended.stderr
    assert "Traceback" not in ended.stderr
