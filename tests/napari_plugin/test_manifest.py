"""What napari is told of the plug-in."""

from __future__ import annotations

import importlib

import pytest
from commands import REPOSITORY, run_program

npe2 = pytest.importorskip("npe2")
pytest.importorskip("napari")

MANIFEST = REPOSITORY / "cellseg/napari/napari.yaml"


def test_the_manifest_is_valid_and_all_that_it_names_is_there() -> None:
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_npe2_finds_nothing_to_mend() -> None:
    done = run_program("-m", "npe2", "validate", str(MANIFEST))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "valid" in done.stdout.lower()


def test_samples_open(make_napari_viewer, npe2pm) -> None:
    viewer = make_napari_viewer()
    with npe2pm.tmp_plugin(manifest=str(MANIFEST)):
        viewer.open_sample("cellseg", "nuclei")
    assert [layer.name for layer in viewer.layers] == ["crowded", "large", "monolayer"]
