"""Do answers travel to a CPU without VNNI, which may saturate the sums of INT8? Emulates one, and asks the same models.

    python -m jobs.benchmarks.inference.elsewhere                      needs the program qemu-x86_64 (package qemu-user)

Exports two networks with random weights and their reference films: one as it is, and one whose weights have one sign,
so that its sums of 8-bit products exceed 16 bits. Then asks both on this CPU and on the emulated one. Prints the
largest difference of a probability from the expected one, and what the check of the reference films says of it.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from conf.errors import InputError, run_command
from inference.candidate.making.reference_films import draw_reference
from inference.model.variants import open_variant
from jobs.benchmarks.inference.answers import MODES
from jobs.benchmarks.inference.fresh import export_fresh
from training.network.models import XrayClassifier

EMULATOR = "qemu-x86_64"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet10_half", help="network, as in training.model")
    parser.add_argument("--size_px", type=int, default=96, help="side of the images (default 96)")
    parser.add_argument("--cpu", default="Haswell-v4", help="CPU to emulate, as of `qemu-x86_64 -cpu help`")
    arguments = parser.parse_args()
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        raise InputError(f"no program {EMULATOR}: install the package qemu-user")
    with tempfile.TemporaryDirectory() as temporary:
        for title, change in (("random weights", None), ("weights of one sign", of_one_sign)):
            folder = Path(temporary, title)
            torch.manual_seed(0)
            export_fresh(arguments.model, arguments.size_px, folder, change=change)
            opened = {mode: open_variant(mode, folder / mode, 1) for mode in MODES}
            reference = draw_reference({mode: predict for mode, (predict, _) in opened.items()}, opened["fp32"][1])
            for mode in MODES:
                reference.save(folder / mode)
            for place, before in (("this CPU", []), (arguments.cpu, [emulator, "-cpu", arguments.cpu])):
                print(f"{title}, {place}:", flush=True)
                command = [*before, sys.executable, "-m", "jobs.benchmarks.inference.answers", str(folder)]
                # The emulator warns of the CPU's features that it cannot emulate.
                asked = subprocess.run(command, stderr=subprocess.PIPE, text=True)
                if asked.returncode:
                    raise InputError(f"{place} gave no answers: {asked.stderr[-500:]}")


def of_one_sign(classifier: XrayClassifier, films: np.ndarray) -> None:
    """Gives each filter nearly equal weights that sum to one, and spreads the logits over the films as usual ones."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in classifier.modules():
            if isinstance(layer, nn.Conv2d):
                noise = 1 + 0.05 * torch.randn(layer.weight.shape, generator=random)
                layer.weight.copy_(noise / layer.weight[0].numel())
        features = classifier.feature_map(torch.from_numpy(films)).mean(dim=(2, 3))
        last = classifier.classifier
        last.weight.mul_(1.5 / last(features).std(dim=0).mean())
        last.bias.copy_(-last.weight @ features.mean(dim=0))


if __name__ == "__main__":
    run_command(main)
