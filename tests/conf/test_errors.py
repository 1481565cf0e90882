import errno
import os
import subprocess
import sys

import pytest

from conf.errors import EXIT_INPUT_ERROR, InputError, run_command


def fail_with(error: BaseException):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("no table at x: make one"), "error: no table at x: make one\n"),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/card.html"),
            "error: no space left for /full/card.html",
        ),
        (
            OSError(errno.ESTALE, os.strerror(errno.ESTALE), "/gone/card.html"),
            "error: /gone/card.html is on a file system that no longer answers (Stale file handle): mount it again and",
        ),
    ],
)
def test_what_people_can_mend_ends_with_a_message(error, said, capsys):
    with pytest.raises(SystemExit) as end:
        run_command(fail_with(error))
    assert end.value.code == EXIT_INPUT_ERROR
    assert capsys.readouterr().err.startswith(said)


def test_a_package_that_is_not_installed_is_named_with_what_installs_it(capsys):
    def main():
        import absent_library.part  # noqa: F401

    with pytest.raises(SystemExit) as end:
        run_command(main)
    assert end.value.code == EXIT_INPUT_ERROR
    said = capsys.readouterr().err
    assert said.startswith("error: the Python module absent_library is not installed")
    assert "make setup" in said and "extras" in said


def test_a_module_of_our_own_that_is_missing_keeps_its_traceback():
    def main():
        import conf.absent  # noqa: F401

    with pytest.raises(ModuleNotFoundError):
        run_command(main)


def test_anything_else_keeps_its_traceback():
    with pytest.raises(PermissionError):
        run_command(fail_with(PermissionError(errno.EACCES, "Permission denied")))


def test_a_reader_that_goes_away_ends_a_command_quietly_and_another_broken_pipe_does_not():
    program = "from conf.errors import run_command; run_command(lambda: [print('line') for _ in range(10**6)])"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
    with pytest.raises(BrokenPipeError):
        run_command(fail_with(BrokenPipeError(errno.EPIPE, "of a worker")))
