import copy
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from inference.candidate.making import layer_search
from inference.candidate.making.calibration_set import calibration_inputs
from inference.candidate.making.export import export_graphs
from inference.candidate.making.layer_search import LayerSearch
from inference.candidate.making.quantize import Work, keep_sensitive_layers, layers_in_fp32, quantize
from inference.candidate.making.time_limit import NO_LIMIT, TimeIsUp, TimeLimit
from inference.model.graphs import compile_graph, convolutions, open_graph, properties_of
from inference.model.networks.served import FITTED, ServedNetwork
from tests.inference.conftest import REPOSITORY


def test_int8_graph_computes_its_convolutions_on_8_bits(fp32, int8):
    # Two convolutions in the body, and the one that makes the maps.
    assert list(convolutions(open_graph(fp32)).values()) == [False] * 3
    assert list(convolutions(open_graph(int8)).values()) == [True] * 3
    assert (int8 / "model.bin").stat().st_size < (fp32 / "model.bin").stat().st_size / 3


@pytest.mark.parametrize("sharpness", [0.0, 3.0])
def test_nothing_is_quantised_after_the_maps(served, splits, test_images, tmp_path, sharpness):
    classifier = copy.deepcopy(served.checkpoint.build())
    classifier.sharpness = sharpness
    parts = {name: getattr(served.network, name).numpy() for name in FITTED}
    export_graphs(replace(served, network=ServedNetwork(classifier, **parts).eval()), tmp_path, (test_images,))
    graph = quantize(tmp_path / "fp32", calibration_inputs(splits["train"], 16, 0, served.properties))
    waiting, after = [graph.output("maps").get_node().input_value(0).get_node()], []
    waiting += [operation for operation in graph.get_ordered_ops() if operation.get_type_name() == "ReduceMean"]
    while waiting:
        operation = waiting.pop()
        after.append(operation.get_type_name())
        waiting += [entry.get_node() for output in operation.outputs() for entry in output.get_target_inputs()]
    assert {"MatMul", "Sigmoid"} <= set(after) and ("Exp" in after) == (sharpness > 0)
    assert "FakeQuantize" not in after
    predict, reference = compile_graph(graph), compile_graph(open_graph(tmp_path / "fp32"))
    for batch in (5, 3, 1):
        difference = predict(test_images[:batch]).probabilities - reference(test_images[:batch]).probabilities
        assert np.abs(difference).mean() < 0.1


def test_int8_graph_keeps_input_batch_size_and_vocabulary(fp32, int8, test_images):
    graph = open_graph(int8)
    assert graph.input("pixels").element_type.to_string() == "u8"
    ours, theirs = properties_of(graph), properties_of(open_graph(fp32))
    assert replace(ours, distance_threshold=0) == replace(theirs, distance_threshold=0)
    predict, reference = compile_graph(graph), compile_graph(open_graph(fp32))
    for batch in (1, 5):
        answer, expected = predict(test_images[:batch]), reference(test_images[:batch])
        assert answer.maps.shape == expected.maps.shape
        # 8 bits move this small network's probabilities by up to 0.3.
        assert np.abs(answer.probabilities - expected.probabilities).mean() < 0.1
        np.testing.assert_allclose(answer.distances, expected.distances, rtol=0.5)


def search_in(images, fp32, overrun, limit=NO_LIMIT, fp32_overrun=-0.1, int8_overrun=0.1, val_s=0.0) -> LayerSearch:
    reference = compile_graph(open_graph(fp32))
    return LayerSearch((images,), reference, overrun, fp32_overrun, int8_overrun, val_s, limit, "INT8, way 3 of 3")


def test_the_most_sensitive_layers_stay_in_fp32_until_the_validation_bound_is_met(fp32, test_images):
    reference, asked = compile_graph(open_graph(fp32)), []

    def change(predict) -> float:
        return float(np.abs(predict(test_images).probabilities - reference(test_images).probabilities).mean())

    plain = change(compile_graph(quantize(fp32, (test_images,))))
    bound = plain / 2

    def overrun(predict) -> float:
        asked.append(change(predict) - bound)
        return asked[-1]

    search = search_in(test_images, fp32, overrun, fp32_overrun=-bound, int8_overrun=plain - bound)
    graph = keep_sensitive_layers(fp32, (test_images,), work=Work(search=search))
    assert change(compile_graph(graph)) <= bound
    assert 0 < len(layers_in_fp32(graph)) < 3
    # Layers are ranked by a few images, and FP32 and INT8 are known. The whole split is scored for each layer returned.
    assert asked == search.overruns[1:] and 0 < len(asked) < 6
    assert search.cut_short == ""


def test_a_graph_that_loses_nothing_is_left_as_it_is(fp32, test_images):
    search = search_in(test_images, fp32, None, int8_overrun=-0.01)
    assert layers_in_fp32(keep_sensitive_layers(fp32, (test_images,), work=Work(search=search))) == []


@pytest.mark.parametrize("num_images", [1, 2, 5])
def test_few_images_are_enough_for_a_search(num_images, fp32, test_images):
    answers = iter([0.05, -0.01])
    search = search_in(test_images[:num_images], fp32, lambda _: next(answers))
    assert layers_in_fp32(keep_sensitive_layers(fp32, (test_images[:num_images],), work=Work(search=search)))
    assert list(answers) == []


def test_time_that_ends_while_layers_are_ranked_ends_the_search_without_a_graph(fp32, test_images, monkeypatch):
    search = search_in(test_images, fp32, None, TimeLimit.after(60))
    # Nothing but the ranking is late.
    ranked, start = [], search.start_ranking

    def late(num_groups: int) -> None:
        start(num_groups)
        search.limit = TimeLimit(0)
        ranked.append(num_groups)

    monkeypatch.setattr(search, "start_ranking", late)
    with pytest.raises(TimeIsUp, match=r"ranking \d+ groups of layers would take about .*, and 0.0 s are left"):
        keep_sensitive_layers(fp32, (test_images,), work=Work(search=search))
    assert ranked[0] >= 3


def test_a_ranking_that_does_not_fit_is_not_begun(fp32, test_images):
    search = search_in(test_images, fp32, None, TimeLimit.after(60), val_s=3599.99)
    with pytest.raises(TimeIsUp, match=r"ranking \d+ groups of layers would take about .*, and .* are left"):
        keep_sensitive_layers(fp32, (test_images,), work=Work(search=search))
    assert search.chosen == []


def test_a_ranking_is_cut_down_to_fewer_images_to_fit(fp32, test_images, monkeypatch):
    images = np.concatenate([test_images] * 8)
    search = search_in(images, fp32, lambda _: -0.01, TimeLimit.after(10))
    start, ranked, chosen = search.start_ranking, [], []

    def slow(num_groups: int) -> None:
        start(num_groups)
        # As if an image took so long that 12 images fit for each group.
        search.image_s = 600 / num_groups / 12
        ranked.append(num_groups)

    changes = search._changes
    monkeypatch.setattr(search, "start_ranking", slow)
    monkeypatch.setattr(search, "_changes", lambda predict, some: chosen.append(list(some)) or changes(predict, some))
    keep_sensitive_layers(fp32, (images,), work=Work(search=search))
    sizes = {len(some) for some in chosen[1:]}
    assert len(sizes) == 1 and layer_search.FEWEST_IMAGES <= sizes.pop() <= 12
    # Those that 8 bits change most.
    assert min(search.changes[chosen[1]]) >= np.sort(search.changes)[::-1][len(images) // 2 - 1] - 1e-12


def test_time_that_ends_after_the_ranking_leaves_what_was_returned_so_far(fp32, test_images):
    def overrun(predict) -> float:
        search.limit = TimeLimit(0)
        return 0.05

    search = search_in(test_images, fp32, overrun, TimeLimit.after(60))
    monitored = keep_sensitive_layers(fp32, (test_images,), work=Work(search=search))
    assert layers_in_fp32(monitored)
    assert search.overruns == [0.1, 0.05]
    assert search.cut_short.startswith("the search for sensitive layers would take about ")


def test_a_group_that_makes_it_worse_starts_no_ranking_for_which_there_is_no_time(fp32, test_images, monkeypatch):
    answers, rankings = iter([0.05, 0.2]), []
    search = search_in(test_images, fp32, lambda _: next(answers), TimeLimit.after(60))
    start, end = search.start_ranking, search.end_ranking
    monkeypatch.setattr(search, "start_ranking", lambda groups: rankings.append(groups) or start(groups))

    def ended() -> None:
        end()
        search.ranking_s = 10_000

    monkeypatch.setattr(search, "end_ranking", ended)
    assert layers_in_fp32(keep_sensitive_layers(fp32, (test_images,), work=Work(search=search)))
    assert len(rankings) == 1
    assert search.cut_short.startswith("ranking the other groups anew would take about 2 h 47 min")


def test_quantising_ends_between_two_images_when_the_time_is_up(fp32, test_images):
    with pytest.raises(TimeIsUp, match="ranges of activations did not end in time"):
        quantize(fp32, (test_images,), work=Work(limit=TimeLimit(0)))
    # The next one is not affected.
    assert layers_in_fp32(quantize(fp32, (test_images,))) == []


def test_in_a_log_the_steps_of_quantising_are_lines(fp32, test_images, monkeypatch, capfd):
    quantize(fp32, (test_images[:4],))
    assert capfd.readouterr() == ("", ""), "a bar that ends within half a minute says nothing"
    monkeypatch.setattr("conf.progress.LINE_EVERY_S", 0)
    answers = iter([0.05, -0.01])
    search = search_in(test_images, fp32, lambda _: next(answers))
    work = Work("INT8, way 3 of 3", search=search)
    keep_sensitive_layers(fp32, (test_images[:4],), correct_biases=True, work=work)
    out, err = capfd.readouterr()
    assert out == ""
    for line in (
        r"ranges of activations: 4 of 4, [\d,.]+/s, 0.0 s left",
        r"correcting biases: 1 of \d, .*",
        r"ranking groups of layers: 2 of \d, .* left",
        r"try 1, the drop of AUROC on the validation split exceeds its bound by 0.0500",
        r"try 2, the drop of AUROC on the validation split meets its bound",
    ):
        assert re.search(f"^INT8, way 3 of 3: {line}$", err, re.MULTILINE), err


SIGNALLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from inference.candidate.making.layer_search import LayerSearch
from inference.candidate.making.quantize import Work, keep_sensitive_layers, quantize
from inference.candidate.making.time_limit import NO_LIMIT
from inference.model.graphs import compile_graph, convolutions, open_graph, save_graph
fp32, int8 = map(Path, sys.argv[1:])
images = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
save_graph(quantize(fp32, (images,)), int8)
models = [compile_graph(open_graph(folder)) for folder in (fp32, int8, fp32)]
drops = iter([0.05, -0.01])
search = LayerSearch((images,), models[0], lambda _: next(drops), -0.1, 0.1, 0, NO_LIMIT, "")
models.append(compile_graph(keep_sensitive_layers(fp32, (images,), work=Work(search=search))))
convolutions(open_graph(int8))
while models:
    models.pop(0)
signal.signal(signal.SIGTERM, lambda *_: print("noted", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_survived_after_graphs_have_come_and_gone(fp32, tmp_path):
    """OpenVINO's plugin sets the thread's signal stack; the first of two to be destroyed frees the other's memory."""
    program = [sys.executable, "-c", SIGNALLED, str(fp32), str(tmp_path / "int8")]
    ended = subprocess.run(program, capture_output=True, text=True, cwd=REPOSITORY)
    assert (ended.returncode, ended.stdout.splitlines()[-1:]) == (0, ["noted"]), ended.stderr


INTERRUPTED = """
import sys
from pathlib import Path
import numpy as np
from conf.errors import run_command
from inference.candidate.making.layer_search import LayerSearch
from inference.candidate.making.quantize import Work, keep_sensitive_layers
from inference.candidate.making.time_limit import NO_LIMIT
from inference.model.graphs import compile_graph, open_graph, save_graph
fp32, int8 = map(Path, sys.argv[1:])
images = np.random.default_rng(0).integers(0, 256, (4, 64, 64), dtype=np.uint8)
asked = []

def overrun(predict):
    asked.append(1)
    print("asked", len(asked), flush=True)
    return 0.1

def run():
    reference = compile_graph(open_graph(fp32))
    search = LayerSearch((images,), reference, overrun, -0.1, 0.1, 0, NO_LIMIT, "")
    print("asked 0", flush=True)
    save_graph(keep_sensitive_layers(fp32, (images,), work=Work(search=search)), int8)

run_command(run)
"""


@pytest.mark.parametrize("when", ["asked 0", "asked 1"])
def test_ctrl_c_ends_it_and_no_thread_keeps_computing(when, fp32, tmp_path):
    program = [sys.executable, "-c", INTERRUPTED, str(fp32), str(tmp_path / "int8")]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    for line in process.stdout:
        if line.strip() == when:
            break
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    # Nothing but progress, of which a busy machine shows more.
    assert all(line.startswith(": ") for line in stderr.splitlines()), stderr
    assert not (tmp_path / "int8").exists()
