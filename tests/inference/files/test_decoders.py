import os
import subprocess
import sys
import threading

from inference.files.decoders import FileDecoders, decode_file
from inference.files.image_files import ImageFile
from tests.conftest import png
from tests.processes import wait_until_group_is_gone


def test_decoders_end_with_a_killed_parent():
    script = """
import time
from inference.files.decoders import FileDecoders
FileDecoders(2)
print("ready", flush=True)
time.sleep(99)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until_group_is_gone(process.pid)


def test_decoders_leave_no_thread_for_the_end_of_the_program(test_images, served, tmp_path):
    """Where the pool still ends while Python does, Python may print a traceback (OSError: Bad file descriptor)."""
    path = tmp_path / "film.png"
    path.write_bytes(png(test_images[0]))
    threads = set(threading.enumerate())
    with FileDecoders(2) as decoders:
        assert next(decoders.decode([ImageFile(str(path))] * 8, served.properties, 0)).film is not None
    assert set(threading.enumerate()) == threads


def test_a_library_s_own_way_to_fail_is_the_file_s_fault(served, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("inference.film.films.load_film", fail)
    path = tmp_path / "film.png"
    path.touch()
    decoded = decode_file(ImageFile(str(path)), served.properties, 0)
    assert decoded.fault == "cannot be decoded: ZeroDivisionError: division by zero"


def test_a_decoder_that_dies_costs_no_answer(test_images, served, tmp_path):
    for index, image in enumerate(test_images):
        (tmp_path / f"{index}.png").write_bytes(png(image))
    files = [ImageFile(str(path)) for path in sorted(tmp_path.iterdir())] * 4
    with FileDecoders(2) as decoders:
        decoded = decoders.decode(files, served.properties, 0)
        first = next(decoded)
        decoders._pool.submit(os._exit, 1)
        assert [one.path for one in (first, *decoded)] == [file.path for file in files]
        assert first.film is not None
