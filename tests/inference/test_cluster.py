"""Files and tiles as tasks of a Dask cluster: the same bytes as on one machine, whoever dies."""

from __future__ import annotations

import importlib
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from cellseg.cells.synthetic import make_cells
from cellseg.errors import ClusterError
from cellseg.inference.cluster import TASKS_PER_WORKER, Cluster, Over, open_cluster
from cellseg.inference.cluster_prediction import describe_model, predict_on_cluster
from cellseg.inference.cluster_tasks import find_memory
from cellseg.inference.cluster_worker import choose_device
from cellseg.inference.file_work import Outcome
from cellseg.inference.files import predict_files
from cellseg.inference.inputs import find_inputs
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor
from cellseg.inference.result_folder import ResultFolder
from cellseg.inference.saving import ResultWriter, Saving
from commands import REPOSITORY, Command
from detectron2.config import CfgNode

SAVED = ("labels", "overlay", "coco", "table", "geojson")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers in processes of their own, which import cellseg from this checkout."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        with open_cluster(workers=2) as opened:
            yield opened


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Here as in workers that have one core each."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight images of cells in two folders, and one that is none."""
    folder = tmp_path / "in"
    for number in range(8):
        path = folder / ("a" if number % 2 else "b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), make_cells(number, (64, 80)).image)
    (folder / "broken.png").write_bytes(b"not a picture")
    return folder


def predict(
    cfg: CfgNode, inputs: Path, out: Path, cluster: Cluster | None = None, **options: Any
) -> Outcome:
    files = find_inputs([str(inputs)]).files
    results = ResultFolder(out, "a")
    write = ResultWriter(results, Saving(SAVED, ("cell",), (1,)))
    model = CellModel(CellPredictor(cfg), spool_folder=results.state_folder)
    if cluster is None:
        outcome = predict_files(model, files, results, write, **options)
    else:
        outcome = predict_on_cluster(model, files, results, write, cluster=cluster, **options)
    write.write_all(files)
    return outcome


def contents_of(folder: Path) -> dict[str, bytes]:
    """Results and the cells that are kept of each image; not how they came about."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_relative_to(folder / ".cellseg" / "images")
    }


@pytest.fixture
def killed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Process of a worker that is killed when three tasks are done and others are under way."""
    killed: list[int] = []
    results: list[object] = []
    get = Cluster._result_of

    def get_and_kill(self: Cluster, future: object) -> object:
        results.append(future)
        if len(results) == 3:
            killed.append(next(iter(cluster.client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)
        return get(self, future)

    monkeypatch.setattr(Cluster, "_result_of", get_and_kill)
    return killed


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.usefixtures("one_thread")
def test_files_are_the_same_bytes(
    batch_size: int, cluster: Cluster, cfg: CfgNode, images: Path, tmp_path: Path
) -> None:
    here = predict(cfg, images, tmp_path / "here", batch_size=batch_size)
    there = predict(cfg, images, tmp_path / "there", cluster, batch_size=batch_size)
    assert contents_of(tmp_path / "there") == contents_of(tmp_path / "here")
    assert (there.done, there.cells, there.failed) == (here.done, here.cells, here.failed)
    assert there.cells > 0
    assert [Path(path).name for path, _, _ in there.failed] == ["broken.png"]
    again = predict(cfg, images, tmp_path / "there", cluster, resume=True)
    assert (again.done, again.skipped, len(again.failed)) == (0, 8, 1)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_worker_changes_nothing(
    cluster: Cluster, cfg: CfgNode, images: Path, tmp_path: Path, killed: list[int]
) -> None:
    predict(cfg, images, tmp_path / "here")
    outcome = predict(cfg, images, tmp_path / "there", cluster)
    assert len(killed) == 1
    assert len(outcome.failed) == 1
    assert contents_of(tmp_path / "there") == contents_of(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_tiles_are_the_same_bytes_though_a_worker_is_killed(
    cluster: Cluster, cfg: CfgNode, tmp_path: Path, killed: list[int]
) -> None:
    cfg.CELLSEG.TEST.TILE, cfg.CELLSEG.TEST.TILE_OVERLAP = 128, 32
    for number in range(2):
        pixels = np.tile(make_cells(number, (64, 80)).image, (7, 8))
        cv2.imwrite(str(tmp_path / f"slide_{number}.png"), pixels)
    here = predict(cfg, tmp_path, tmp_path / "here")
    there = predict(cfg, tmp_path, tmp_path / "there", cluster)
    assert len(killed) == 1
    assert (there.done, there.failed) == (2, [])
    assert there.cells == here.cells > 20
    assert contents_of(tmp_path / "there") == contents_of(tmp_path / "here")


DEADLY = """
import os
from cellseg.inference.predictor import CellPredictor

detect = CellPredictor._detect

def die_of_white(self, batch, *given, **options):
    if min(image.min() for image in batch) == 255:
        os._exit(1)  # as a process that takes too much memory
    return detect(self, batch, *given, **options)

CellPredictor._detect = die_of_white
"""


@pytest.mark.slow
@pytest.mark.parametrize("tile", [0, 64])
@pytest.mark.usefixtures("one_thread")
def test_an_image_that_workers_die_of_fails_alone(
    tile: int,
    cluster: Cluster,
    cfg: CfgNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers import the plug-ins of the client, wherever they lie: here one that ends them."""
    plugin = tmp_path / "plugins" / f"plugin_deadly_{tile}.py"
    plugin.parent.mkdir()
    plugin.write_text(DEADLY)
    monkeypatch.setitem(sys.modules, plugin.stem, SimpleNamespace(__file__=str(plugin)))
    cfg.CELLSEG.PLUGINS = [plugin.name]
    cfg.CELLSEG.TEST.TILE, cfg.CELLSEG.INPUT.NORMALIZE = tile, "none"
    monkeypatch.setattr(cluster.client.cluster.scheduler, "allowed_failures", 0)
    images = tmp_path / "in"
    images.mkdir()
    for number in range(4):
        pixels = make_cells(number, (64, 400)).image if number else np.full((64, 400), 255, "u1")
        cv2.imwrite(str(images / f"{number}.png"), pixels)
    outcome = predict(cfg, images, tmp_path / "out", cluster)
    assert outcome.done == 3
    ((path, _, reason),) = outcome.failed
    assert path == str(images / "0.png")
    assert reason.startswith(f"{path}: each worker that looked at it died (1 of them)")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_command_with_a_scheduler(
    cluster: Cluster,
    checkpoint_options: list[str],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Relative paths mean the same to workers, whose current folder is another one."""
    monkeypatch.chdir(tmp_path)
    for out, options in (
        ("here", []),
        ("there", ["--scheduler", cluster.client.scheduler.address]),
    ):
        config = REPOSITORY / "configs" / "quick_start.yaml"
        words = ["in", "-o", out, "--config-file", config, *options, "--opts", *checkpoint_options]
        assert Command("predict").main(words) == 1  # one image is none
    assert contents_of(Path("there")) == contents_of(Path("here"))
    assert "\nin/broken.png," in Path("there", "failed.csv").read_text()


def test_options_that_exclude_each_other_or_are_no_numbers(capsys) -> None:
    for words in (["--workers", "2", "--scheduler", "a"], ["--workers", "0"]):
        with pytest.raises(SystemExit):
            Command("predict").main(["in", "-o", "out", *words])
    said = capsys.readouterr().err
    assert "not allowed with argument --workers" in said
    assert "'0': expected a number of workers, 1 or more" in said


def test_the_cluster_is_ours_alone(cluster: Cluster) -> None:
    """Arrays that something else in this process computes with Dask are none of its business."""
    dask = pytest.importorskip("dask")
    assert dask.config.get("scheduler", None) is None
    address = cluster.client.scheduler.address
    with open_cluster(address):
        assert dask.config.get("scheduler", None) is None
    with pytest.raises(ValueError, match="No"):
        importlib.import_module("distributed").get_client()


def test_work_is_handed_out_as_it_is_done(cluster: Cluster) -> None:
    taken: list[int] = []
    furthest = 0
    items = (taken.append(number) or number for number in range(200))  # type: ignore[func-returns-value]
    results = []
    for done, (item, result) in enumerate(cluster.map(abs, items)):
        furthest = max(furthest, len(taken) - done)
        results.append((item, result))
    assert sorted(results) == [(number, number) for number in range(200)]
    assert furthest <= 2 * TASKS_PER_WORKER + 1


def test_a_worker_without_our_disks_or_versions(
    cluster: Cluster, cfg: CfgNode, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    recipe = describe_model(CellModel(CellPredictor(cfg)), "", 1.0)
    gone.rmdir()
    with pytest.raises(Over):
        cluster.call(find_memory, recipe)
    assert re.fullmatch(rf"worker \d: the folder {gone} cannot be entered: .*", str(cluster.fatal))
    other = replace(recipe, key="x", current_folder=tmp_path, versions=(("cellseg", "0.0.1"),))
    with pytest.raises(Over):
        cluster.call(find_memory, other)
    assert re.fullmatch(
        r"worker \d: it has cellseg .*, torch .*; expected cellseg 0\.0\.1, as where the task .*",
        str(cluster.fatal),
    )


def test_no_scheduler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellseg.inference.cluster.ANSWER_WITHIN_S", 0.5)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    for place in (address, "nonsense", "tcp://127.0.0.1:none"):
        said = f"^--scheduler {place}: no Dask scheduler answers"
        with pytest.raises(ClusterError, match=said), open_cluster(place):
            pass


def test_without_dask_the_error_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = r"pip install 'cellseg\[dask\]'"
    with pytest.raises(ClusterError, match=said), open_cluster(workers=2):
        pass


def test_dask_cuda_has_chosen_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2,0")
    assert choose_device("1", 3) == "cuda:0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert choose_device("1", 3) == "cuda:1"
    assert choose_device("tcp://10.0.0.1:37161", 3) == "cuda:0"
