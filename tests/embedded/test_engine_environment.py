"""detectron2.utils: env, memory, serialize, file_io, collect_env."""

from __future__ import annotations

import copy
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import TORCH_VERSION, fixup_module_metadata, seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.serialize import PicklableWrapper

ENGINE_ROOT = Path(sys.modules["detectron2"].__file__ or "").parent.parent


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002


def test_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")  # put back afterwards
    seed_all_rng(7)
    first = draw()
    seed_all_rng(7)
    assert draw() == first
    seed_all_rng(8)
    assert not set(draw()) & set(first)


def test_a_random_seed_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    with caplog.at_level("INFO"):
        seed_all_rng()
    assert "seed" in caplog.text


def test_torch_version() -> None:
    assert f"{TORCH_VERSION[0]}.{TORCH_VERSION[1]}" in torch.__version__


def test_a_package_becomes_the_home_of_its_names_in_documentation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make() -> Any:
        return type("Thing", (), {"__module__": "my_package.things"})

    shown, hidden, strange = make(), make(), type("Other", (), {"__module__": "elsewhere"})
    names = {"Thing": shown, "_Thing": hidden, "Other": strange, "NUMBER": 3}
    fixup_module_metadata("my_package", names)
    assert shown.__module__ == "my_package.things"  # nothing happens otherwise
    monkeypatch.setattr("detectron2.utils.env.DOC_BUILDING", True)
    fixup_module_metadata("my_package", names, ["_Thing"])
    fixup_module_metadata("my_package", names)
    modules = [each.__module__ for each in (shown, hidden, strange)]
    assert modules == ["my_package", "my_package.things", "elsewhere"]


@pytest.mark.embedded_only
@pytest.mark.parametrize("as_file", [True, False])
def test_environment_module_runs_once(tmp_path: Path, as_file: bool) -> None:
    (tmp_path / "my_setup.py").write_text(
        "def setup_environment():\n    print('set up')\n", encoding="utf-8"
    )
    named = str(tmp_path / "my_setup.py") if as_file else "my_setup"
    code = "import detectron2; from detectron2.utils.env import setup_environment as s; s()"
    environment = {
        "DETECTRON2_ENV_MODULE": named,
        "PYTHONPATH": f"{ENGINE_ROOT}:{tmp_path}",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set up\n"


def failing(times: int, message: str) -> Any:
    calls = []

    def compute(value: Any, *, factor: int) -> tuple[Any, int]:
        calls.append(value)
        if len(calls) <= times:
            raise RuntimeError(message)
        return value, factor * len(calls)

    return compute


class OnGpu:
    """Looks like a tensor on a GPU."""

    device = torch.device("cuda:0")

    def to(self, device: str) -> str:
        return f"now on {device}"


OOM = "CUDA out of memory. Tried to allocate 2.00 GiB"


def test_retry_if_cuda_oom() -> None:
    value = OnGpu()
    for times, expected in ((0, (value, 1)), (1, (value, 2)), (2, ("now on cpu", 3))):
        assert retry_if_cuda_oom(failing(times, OOM))(value, factor=1) == expected
    assert retry_if_cuda_oom(failing(2, OOM))("text", factor=2) == ("text", 6)


def test_retry_leaves_other_errors_alone() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        retry_if_cuda_oom(failing(3, OOM))(1, factor=1)
    with pytest.raises(RuntimeError, match="another"):
        retry_if_cuda_oom(failing(1, "another"))(1, factor=1)


def test_picklable_wrapper() -> None:
    offset = 5
    wrapped = PicklableWrapper(PicklableWrapper(lambda x: x + offset))
    assert wrapped(1) == 6
    assert wrapped.__name__ == "<lambda>"
    assert pickle.loads(pickle.dumps(wrapped))(2) == 7
    assert copy.deepcopy(wrapped)(3) == 8


@pytest.mark.embedded_only
def test_picklable_wrapper_before_its_init() -> None:
    with pytest.raises(AttributeError):
        PicklableWrapper.__new__(PicklableWrapper).anything  # noqa: B018


def test_path_manager(tmp_path: Path) -> None:
    path = str(tmp_path / "sub" / "file.txt")
    PathManager.mkdirs(str(tmp_path / "sub"))
    with PathManager.open(path, "w") as file:
        file.write("text")
    assert PathManager.isfile(path)
    assert PathManager.get_local_path(path) == path


def test_published_files_are_downloaded_from_the_public_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []
    local = tmp_path / "R-50.pkl"
    local.write_bytes(b"weights")

    class Cache(type(PathManager._path_handlers["https://"])):  # type: ignore[misc]
        def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
            asked.append(path)
            return str(local)

    monkeypatch.setitem(PathManager._path_handlers, "https://", Cache())
    name = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert PathManager.get_local_path(name) == str(local)
    with PathManager.open(name, "rb") as file:
        assert file.read() == b"weights"
    assert set(asked) == {
        "https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl"
    }


def test_collect_env_info() -> None:
    text = collect_env_info()
    for part in ("detectron2", "numpy", torch.__version__, sys.version.split()[0], "GPU"):
        assert part in text


@pytest.mark.embedded_only
def test_collect_env_info_with_gpus_and_a_broken_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Card")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setitem(sys.modules, "cv2", None)
    text = collect_env_info()
    assert "GPU 0,1" in text
    assert "Card (compute 9.0)" in text
    assert "cannot be imported" in text
