"""Which engine `import detectron2` finds, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cellseg.errors import LibraryError

REPOSITORY = Path(__file__).resolve().parent.parent
SHOW = "import cellseg; i = cellseg.engine_info(); print(i.name, i.version, i.location, sep='|')"


def run_python(code: str, cwd: Path, extra_path: Path | None = None) -> str:
    paths = [str(path) for path in (extra_path, REPOSITORY) if path]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.embedded_only
def test_embedded_engine_runs_where_none_is_installed(tmp_path: Path) -> None:
    name, version, location = run_python(SHOW, tmp_path).split("|")
    assert (name, Path(location)) == ("embedded", REPOSITORY / "cellseg/embedded/detectron2")
    assert version


def test_an_installed_engine_wins(tmp_path: Path) -> None:
    package = tmp_path / "site" / "detectron2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("__version__ = '9.9'\n")
    name, version, location = run_python(SHOW, tmp_path, package.parent).split("|")
    assert (name, version, Path(location)) == ("detectron2", "9.9", package)


@pytest.mark.embedded_only
def test_a_bare_folder_is_no_engine(tmp_path: Path) -> None:
    (tmp_path / "detectron2").mkdir()
    assert run_python(SHOW, tmp_path).startswith("embedded|")


@pytest.mark.embedded_only
def test_the_engine_folder_goes_last_and_once(tmp_path: Path) -> None:
    code = (
        "import sys, cellseg; cellseg.ensure_detectron2();"
        "print(sys.path[-1], sum('embedded' in p for p in sys.path), sep='|')"
    )
    last, count = run_python(code, tmp_path).split("|")
    assert (Path(last), count) == (REPOSITORY / "cellseg/embedded", "1")


@pytest.mark.embedded_only
def test_spawned_workers_inherit_the_engine(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(
        "import multiprocessing as mp, pathlib\n"
        "def where(_):\n"
        "    import detectron2\n"
        "    return pathlib.Path(detectron2.__file__).parent.parent.name\n"
        "if __name__ == '__main__':\n"
        "    import cellseg\n"
        "    with mp.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(where, [0])[0])\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "embedded"


def test_engine_info_names_versions() -> None:
    import cellseg
    import torch

    info = cellseg.engine_info()
    assert info.packages["torch"] == torch.__version__.split("+")[0] or (
        info.packages["torch"] == torch.__version__
    )
    assert f"torch {info.packages['torch']}" in str(info)
    assert str(info.location) in str(info)


@pytest.mark.embedded_only
def test_a_bare_folder_that_was_imported_first_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "detectron2" / "tools").mkdir(parents=True)
    code = f"import detectron2.tools; {SHOW}; from detectron2.config import get_cfg"
    assert run_python(code, tmp_path).startswith("embedded|")


NO_LIBGL = "libGL.so.1: cannot open shared object file: No such file or directory"
HEADLESS = "pip install --force-reinstall opencv-python-headless"


@pytest.mark.parametrize("use", ["import cv2", "from cellseg.cells import label_planes"])
def test_opencv_without_its_libraries_says_what_to_do(tmp_path: Path, use: str) -> None:
    """As in a container without libGL, at whatever door OpenCV is asked for first."""
    (tmp_path / "cv2.py").write_text(f"raise ImportError({NO_LIBGL!r})\n")
    code = (
        "import cellseg\nfrom cellseg.errors import LibraryError\n"
        f"try:\n    {use}\nexcept LibraryError as error:\n    print(error)"
    )
    told = run_python(code, tmp_path, tmp_path)
    assert NO_LIBGL in told
    assert HEADLESS in told


def test_a_command_without_opencv_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text(f"raise ImportError({NO_LIBGL!r})\n")
    paths = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-m", "cellseg", "inspect", "no_such_set"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("LibraryError: OpenCV")
    assert "Traceback" not in done.stderr


def test_opencv_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    (finder,) = (each for each in sys.meta_path if type(each).__name__ == "_OpenCVFinder")
    monkeypatch.setattr(sys, "meta_path", [finder])
    with pytest.raises(LibraryError, match="not installed: pip install opencv-python"):
        finder.find_spec("cv2")
    assert finder.find_spec("torch") is None


def test_a_finder_that_refuses_opencv_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        def find_spec(self, name, path=None, target=None):
            raise ImportError(NO_LIBGL)

    (finder,) = (each for each in sys.meta_path if type(each).__name__ == "_OpenCVFinder")
    monkeypatch.setattr(sys, "meta_path", [finder, Refusing()])
    with pytest.raises(LibraryError, match=r"libGL.*headless"):
        finder.find_spec("cv2")


def test_warnings_may_be_errors(tmp_path: Path) -> None:
    """As with `python -W error`: fvcore's own are not ours to mend."""
    code = "import cellseg, warnings; warnings.simplefilter('error'); import cellseg.engine.trainer"
    assert run_python(f"{code}; print('quiet')", tmp_path) == "quiet"
