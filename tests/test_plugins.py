"""User code, imported by name or by path."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from cellseg.errors import PluginError
from cellseg.evaluation import EVALUATOR_REGISTRY
from cellseg.plugins import import_installed, import_plugins

COUNTING = """
import os
with open(os.path.join(os.path.dirname(__file__), "runs.txt"), "a") as log:
    log.write("x")
class Head:
    pass
"""


@pytest.fixture(autouse=True)
def clean_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def write(path: Path, text: str = COUNTING) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def runs(folder: Path) -> int:
    return len((folder / "runs.txt").read_text())


def test_nothing_to_import() -> None:
    assert import_plugins([]) == []


def test_a_file_is_executed_once_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "heads" / "plugin_once.py")
    monkeypatch.chdir(tmp_path)
    spellings = [str(path), "heads/plugin_once.py", "heads/../heads/plugin_once.py", "plugin_once"]
    modules = import_plugins(spellings)
    modules += import_plugins(["plugin_once.py"], base_dir="heads")
    assert len(set(map(id, modules))) == 1
    assert runs(path.parent) == 1


@pytest.mark.parametrize("plugin", ["plugin_here.py", "plugin_here", "plugin_package.inner"])
@pytest.mark.parametrize("place", ["cwd", "base_dir"])
def test_looks_in_the_current_folder_and_beside_the_config(
    plugin: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: tmp_path / name for name in ("cwd", "base_dir")}
    for folder in folders.values():
        folder.mkdir()
    write(folders[place] / "plugin_here.py")
    write(folders[place] / "plugin_package" / "__init__.py")
    write(folders[place] / "plugin_package" / "inner.py")
    monkeypatch.chdir(folders["cwd"])
    (module,) = import_plugins([plugin], base_dir=folders["base_dir"])
    assert str(module.__file__).startswith(str(folders[place]))


def test_the_current_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "plugin_both.py")
    write(tmp_path / "b" / "plugin_both.py")
    monkeypatch.chdir(tmp_path / "a")
    (module,) = import_plugins(["plugin_both.py"], base_dir=tmp_path / "b")
    assert module.__file__ == str(tmp_path / "a" / "plugin_both.py")


def test_a_plugin_imports_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "plugin_neighbour.py", "VALUE = 3\n")
    path = write(tmp_path / "plugin_user.py", "from plugin_neighbour import VALUE\n")
    assert import_plugins([str(path)])[0].VALUE == 3


def describe(head: object) -> str:
    return f"{type(head).__module__}.{type(head).__name__} {os.getpid()}"


def test_objects_travel_to_spawned_workers(tmp_path: Path) -> None:
    path = write(tmp_path / "plugin_travels.py")
    (module,) = import_plugins([str(path)])
    assert pickle.loads(pickle.dumps(module.Head))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        name, pid = pool.apply(describe, (module.Head(),)).split()
    assert name == "plugin_travels.Head"
    assert int(pid) != os.getpid()


@pytest.mark.parametrize("plugin", ["plugin_nowhere.py", "plugin_nowhere", "sub/plugin_nowhere"])
def test_not_found_says_where_it_was_looked_for(
    plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError) as caught:
        import_plugins([plugin], base_dir=tmp_path / "configs")
    text = str(caught.value)
    assert repr(plugin) in text
    assert f"{tmp_path}" in text
    assert f"{tmp_path / 'configs'}" in text


def test_an_error_in_the_plugin_keeps_its_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "plugin_broken.py", "import os\n\nvalue = 1 / 0\n")
    search_path = list(sys.path)
    with pytest.raises(
        PluginError, match=r"plugin_broken\.py' failed .* ZeroDivisionError"
    ) as caught:
        import_plugins([str(path)])
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    last = traceback.extract_tb(cause.__traceback__)[-1]
    assert (last.filename, last.lineno) == (str(path), 3)
    assert "plugin_broken" not in sys.modules
    assert sys.path == search_path
    path.write_text("value = 2\n")
    os.utime(path, (1, 1))
    assert import_plugins([str(path)])[0].value == 2


def test_a_missing_import_inside_the_plugin_is_not_a_missing_plugin(tmp_path: Path) -> None:
    path = write(tmp_path / "plugin_needs.py", "import plugin_that_is_nowhere\n")
    with pytest.raises(PluginError, match=r"failed .* No module named 'plugin_that_is_nowhere'"):
        import_plugins([str(path)])


def test_a_missing_submodule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "plugin_empty" / "__init__.py", "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=r"No module named 'plugin_empty\.heads'"):
        import_plugins(["plugin_empty.heads"])


def test_a_syntax_error(tmp_path: Path) -> None:
    path = write(tmp_path / "plugin_syntax.py", "def broken(:\n")
    with pytest.raises(PluginError, match="SyntaxError"):
        import_plugins([str(path)])


@pytest.mark.parametrize("name", ["json.py", "pytest.py", "sys.py"])
def test_a_name_that_is_taken(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name)
    with pytest.raises(PluginError, match=f"called '{path.stem}' exists already .*rename"):
        import_plugins([str(path)])
    assert str(tmp_path) not in sys.path


def test_two_files_of_one_name(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "plugin_twin.py")
    second = write(tmp_path / "b" / "plugin_twin.py")
    with pytest.raises(PluginError, match=f"exists already .{first}.; rename {second}"):
        import_plugins([str(first), str(second)])


@pytest.mark.parametrize("name", ["plugin-dash.py", "plugin_notes.txt", "1plugin.py"])
def test_files_that_are_no_modules(name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="cannot be imported"):
        import_plugins([str(write(tmp_path / name))])


@pytest.mark.parametrize("name", ["", "my-heads", "heads..inner", "C:heads"])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(PluginError, match="neither a module name nor a path"):
        import_plugins([name])


def test_an_installed_module() -> None:
    (module,) = import_plugins(["xml.dom"])
    assert module.__name__ == "xml.dom"


def test_two_plugins_that_register_one_name(tmp_path: Path) -> None:
    text = (
        "from cellseg.evaluation import EVALUATOR_REGISTRY\n"
        "@EVALUATOR_REGISTRY.register()\n"
        "def plugin_twice(cfg, dataset_name, output_folder): ...\n"
    )
    paths = [write(tmp_path / f"plugin_{name}.py", text) for name in ("first", "second")]
    try:
        with pytest.raises(PluginError) as caught:
            import_plugins(list(map(str, paths)))
    finally:
        EVALUATOR_REGISTRY._obj_map.pop("plugin_twice")
    text = str(caught.value)
    assert repr(str(paths[1])) in text
    assert "'plugin_twice' was already registered in 'EVALUATOR' registry" in text
    assert "choose another name" in text


def test_weights_bring_no_code_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "plugin_theirs.py")
    for name in ("plugin_theirs", "plugin_theirs.py", "./plugin_theirs.py"):
        with pytest.raises(PluginError, match=r"cells\.zip names the plug-in .* --plugin"):
            import_installed([name], "cells.zip")
    assert not (tmp_path / "runs.txt").exists()
    import_plugins(["plugin_theirs.py"])  # the user names it
    (module,) = import_installed(["plugin_theirs"], "cells.zip")
    assert module.Head
    (installed,) = import_installed(["pycocotools.mask"], "cells.zip")
    assert installed.encode
