"""Exceptions of foreign code become one line; ours, Ctrl-C and a shortage of memory stay what they are."""

import errno
import json
import sys

import pytest
import torch

from klarsicht.ground.errors import ImageRefused, ModelError, OutOfMemory, ProgramFailed, Unreachable, UsageError
from klarsicht.ground.foreign import describe_error, foreign_errors, foreign_errors_on_image, is_device_error


def guarded(error):
    with foreign_errors(ModelError, "it fails", of="zoo:net", remedy="Mend it."):
        raise error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (KeyError("logit"), "it fails; got zoo:net: KeyError: 'logit' (test_foreign.py, line "),
        (AttributeError("no head"), "zoo:net: AttributeError: no head"),
        (SystemExit(2), "zoo:net: SystemExit: 2"),
        (RuntimeError("\n  first\nsecond"), "RuntimeError: first (test"),
        (RuntimeError("Errors while loading:\n\tsize mismatch\n\tmore"), "Errors while loading: size mismatch (test"),
        (StopIteration(), "zoo:net: StopIteration (test"),
    ],
)
def test_a_foreign_exception_is_one_line_with_its_place(error, told):
    with pytest.raises(ModelError) as caught:
        guarded(error)
    assert told in str(caught.value)
    assert str(caught.value).endswith(". Mend it.")
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UsageError("ours"), UsageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), OutOfMemory),
        (RuntimeError("CUDA out of memory"), OutOfMemory),
    ],
)
def test_what_is_no_fault_of_the_code_is_not_called_one(error, kind):
    with pytest.raises(kind):
        guarded(error)


def test_the_place_is_the_line_of_the_user_and_none_of_a_library():
    try:
        json.loads("{")
    except ValueError as error:
        assert f"(decoder.py, line {sys.exc_info()[2].tb_next.tb_next.tb_next.tb_lineno})" in describe_error(error)
    assert describe_error(ValueError("x" * 5000)) == f"ValueError: {'x' * 300}"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KeyError("logit"), ImageRefused),
        (OSError("image file is truncated"), ImageRefused),  # of Pillow: no number
        (OSError(errno.EINVAL, "Invalid argument"), ImageRefused),  # a place before the beginning of a file
        (FileNotFoundError(errno.ENOENT, "No such file", "x.png"), Unreachable),
        (OSError(errno.ESTALE, "Stale file handle"), Unreachable),
        (TimeoutError("timed out"), Unreachable),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), OutOfMemory),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), ProgramFailed),
        (RuntimeError("CUDA error: out of memory"), OutOfMemory),
        (RuntimeError("shapes cannot be multiplied"), ImageRefused),
    ],
)
def test_what_the_system_does_not_give_says_nothing_of_an_image(error, kind):
    with pytest.raises(kind, match="zoo:net"), foreign_errors_on_image(ImageRefused, "it fails", of="zoo:net"):
        raise error


def test_an_error_of_a_device_is_known_by_the_words_of_torch():
    assert is_device_error(RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be"))
    assert is_device_error(type("AcceleratorError", (RuntimeError,), {})("HIP failure"))
    assert not is_device_error(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_device_error(KeyError("CUDA error"))


def test_the_reason_why_torch_refuses_a_checkpoint_is_said():
    with (
        pytest.raises(ModelError, match=r"size mismatch for weight: .*10, 3.*12, 3"),
        foreign_errors(ModelError, "it fails", of="zoo:net"),
    ):
        torch.nn.Linear(3, 12).load_state_dict(torch.nn.Linear(3, 10).state_dict())
