"""Pickles are read without running what they say."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellseg.errors import CheckpointError
from cellseg.modeling.weights import load_weights
from cellseg.pickles import ArraysOnly
from torch import nn


class RunsProgram:
    """A pickle of this runs a program when it is loaded."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.program,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(protocol: int) -> None:
    content = OrderedDict(a=np.arange(6.0).reshape(2, 3), b=[np.float32(2), b"x", {1}, "y"])
    unpickler = ArraysOnly(io.BytesIO(pickle.dumps(content, protocol)))
    found = unpickler.load()
    assert unpickler.others == set()
    assert (found["a"] == content["a"]).all()
    assert found["b"] == content["b"]


def test_what_else_is_named_does_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    unpickler = ArraysOnly(io.BytesIO(pickle.dumps({"a": RunsProgram(f"touch {ran}")})))
    unpickler.load()
    assert unpickler.others == {f"{os.system.__module__}.system"}
    assert not ran.exists()


def test_a_table_of_objects_beyond_the_file_is_refused() -> None:
    huge = b"\x80\x02]r\x00\x00\x00\x70."  # an empty list, to be number 1,879,048,192
    with pytest.raises(pickle.UnpicklingError, match="numbers an object 1879048192 of 9 bytes"):
        ArraysOnly(io.BytesIO(huge)).load()


def test_weights_that_would_run_a_program_are_refused(tmp_path: Path) -> None:
    """Detectron2's own reader of .pkl runs whatever is in it."""
    ran, path = tmp_path / "ran", tmp_path / "cells.pkl"
    content = {"model": {"weight": RunsProgram(f"touch {ran}")}, "__author__": "them"}
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"cells.pkl: .* it names \w+\.system"):
        load_weights(nn.Linear(1, 1), path)
    assert not ran.exists()
