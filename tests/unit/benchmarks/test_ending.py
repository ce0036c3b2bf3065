"""A benchmark that is told to end removes what it made."""

import signal
import subprocess
import sys

import pytest

MEASURE = """\
import signal, sys
from benchmarks.__main__ import end_orderly
end_orderly()
try:
    print("measuring", flush=True)
    signal.pause()
finally:
    print("cleaning", flush=True)
    sys.stdin.readline()
    print("clean", flush=True)
"""


SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


@SIGNALS
def test_a_signal_ends_it_through_its_cleaning_and_a_second_one_does_not_cut_that_short(number: int) -> None:
    words = [sys.executable, "-c", MEASURE]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "measuring\n"
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(number)
        rest, _ = process.communicate("go on\n", timeout=30)
    assert rest == "clean\n"
    assert process.returncode == 128 + number


@SIGNALS
def test_a_third_signal_ends_a_cleaning_that_hangs(number: int) -> None:
    words, pipe = [sys.executable, "-c", MEASURE], subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "measuring\n"
        process.send_signal(number)
        assert process.stdout.readline() == "cleaning\n"
        process.send_signal(number)
        assert "one more signal" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(30) == -number
