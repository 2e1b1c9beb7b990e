"""Which engine `import detectron2` finds, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
