"""Commands for which memory runs short, in processes of their own: one line and the exit code of short memory, always.

Each process here waits for ever, or dies without a line, where nobody tells its end: the time limit is the oracle.
"""

import compileall
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.marks import slow

import klarsicht
from klarsicht.cli import limited_memory
from klarsicht.cli.limited_memory import ARENA_BYTES, BUFFER_BYTES, STUCK_S, StuckDetector

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the address space in use")
PATIENCE_S = 600  # of a test: a process that is not ended waits for ever

DYING = """
import asyncio, threading
from concurrent.futures import Future, ThreadPoolExecutor
from klarsicht.cli.short_memory import end_at_failed_threads

def short(*args, **kwargs):
    raise MemoryError

def of_a_thread():
    never = threading.Event()
    threading.Thread(target=lambda: (short(), never.set())).start()
    never.wait()

def before_its_first_sign():
    threading.Thread._bootstrap_inner = short
    threading.Thread(target=print).start()

def of_a_pool_that_cannot_store_its_error():
    Future.set_exception = Future.set_result = short
    ThreadPoolExecutor(1).submit(print).result()

def of_a_loop():
    loop, never = asyncio.new_event_loop(), threading.Event()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    loop.call_soon_threadsafe(lambda: (short(), never.set()))
    never.wait()

with end_at_failed_threads():
    {way}()
"""


def python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, **options)


@pytest.mark.parametrize(
    "way", ["of_a_thread", "before_its_first_sign", "of_a_pool_that_cannot_store_its_error", "of_a_loop"]
)
def test_a_thread_that_dies_of_short_memory_ends_the_command(way):
    done = python(DYING.replace("{way}", way))
    (line,) = done.stderr.splitlines()
    assert line.startswith("klarsicht: memory ran short; got MemoryError")
    assert done.returncode == 9


def test_a_thread_that_fails_otherwise_is_told_as_ever():
    done = python(DYING.replace("{way}()", "t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()"))
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert done.returncode == 0


WATCHED = """
import ctypes, os, resource, sys, time
from klarsicht.cli import limited_memory
from klarsicht.ground.machine.operating_system import address_space

def ask_in_a_loop():
    malloc = ctypes.CDLL(None).malloc
    malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    while not malloc(1 << 25):
        pass

def fault():
    raise ZeroDivisionError

def sleep():
    print("sleeps", flush=True)
    while True:  # a signal heard just before a sleep begins waits for its end
        time.sleep(0.1)

limited_memory.STUCK_S = 2.0
limit = address_space(os.getpid()) + (20 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(limited_memory.run_limited(lambda: {command}))
"""


def watched(command):
    return WATCHED.replace("{command}", command)


@linux
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("os.abort()", "a library ended the process"),
        ("ctypes.CDLL(None).exit(1)", "a library ended the process"),
        # as OpenBLAS 0.3.30 does for its buffer
        slow("ask_in_a_loop()", "no memory was left"),
        ("bytes(1 << 29)", "a library ended the process"),  # a command that does not tell: not even its import fits
    ],
)
def test_an_end_that_the_command_cannot_tell_is_told_for_it(command, told):
    done = python(watched(command))
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"klarsicht: {told}") and "ulimit -v" in line
    assert "Traceback" not in done.stderr
    assert done.returncode == 9


@linux
@pytest.mark.parametrize("code", [0, 3, 130])
def test_a_code_is_handed_on(code):
    done = python(watched(str(code)))
    assert (done.returncode, done.stderr) == (code, "")


@linux
def test_a_fault_is_one_traceback():
    done = python(watched("fault()"))
    assert done.stderr.count("Traceback") == 1 and done.stderr.endswith("ZeroDivisionError\n")
    assert done.returncode == 1


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_ends_both(number):
    heard = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # in the background it is ignored
    )
    with subprocess.Popen(
        [sys.executable, "-c", heard + watched("sleep()")], stdout=-1, stderr=-1, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it sleeps
        process.send_signal(number)
        try:
            process.communicate(timeout=PATIENCE_S)  # the child holds the other ends of both pipes
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == -number


@pytest.mark.slow
@linux
def test_a_whole_command_with_hardly_any_addresses_tells_so():
    compileall.compile_dir(Path(klarsicht.__file__).parent, quiet=2)  # Python's compiler tells short memory as it likes
    for megabytes in (40, 60, 100, 200, 400):
        script = f"ulimit -v {megabytes * 1000}; exec {sys.executable} -m klarsicht audit status nowhere"
        one = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # without room for a thread OpenBLAS sends SIGINT: code 130
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, env=one)
        assert (done.returncode in (3, 9)) and "Traceback" not in done.stderr, (megabytes, done.stderr)
        assert sum(line.startswith("klarsicht:") for line in done.stderr.splitlines()) == 1


def looks(left, own, of_system, seconds=int(STUCK_S) + 3):
    watch = StuckDetector(limit=10**12)
    return [watch.is_stuck(t, 10**12 - left, (own * t, of_system * t)) for t in range(seconds)][-1]


def test_stuck_is_who_only_asks_for_memory():
    assert looks(ARENA_BYTES - 1, 0.1, 0.9)
    assert looks(ARENA_BYTES - 1, 0, 0)  # waits for a thread that never began
    assert looks(BUFFER_BYTES - 1, 0.1, 0.9)
    assert not looks(ARENA_BYTES - 1, 0.9, 0.1)  # computes in what it has
    assert not looks(BUFFER_BYTES - 1, 0, 0)  # waits for its workers
    assert not looks(BUFFER_BYTES, 0.1, 0.9)
    assert not looks(0, 0.1, 0.9, seconds=int(STUCK_S))


def test_without_a_limit_the_command_runs_in_this_process(monkeypatch):
    monkeypatch.setattr(limited_memory, "address_space_limit", lambda: None)
    assert limited_memory.run_limited(os.getpid) == os.getpid()


def test_a_command_that_ends_for_memory_waits_for_no_thread():
    """Python waits for its threads at the end; one that lies in a library may never answer."""
    done = python("import threading, time; from klarsicht.cli.short_memory import end\n"
                  "threading.Thread(target=time.sleep, args=(3600,)).start(); print('said'); end(9)")  # fmt: skip
    assert (done.returncode, done.stdout) == (9, "said\n")
