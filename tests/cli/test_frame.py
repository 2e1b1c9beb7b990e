"""What all commands share: names, help, errors, overrides, several configs, the doors in tools/."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import cellseg
import pytest
from cellseg.cli import command_names, main, parse_command, run_command
from cellseg.cli._parser import CommandParser, split_off_overrides
from cellseg.errors import DatasetError
from cellseg.io import FORMATS
from commands import REPOSITORY, run_program

COMMANDS = ["bundle", "convert", "demo", "evaluate", "export-model", "find-lr", "info", "inspect"]
COMMANDS += ["link", "predict", "preview", "report", "suggest", "train", "tune"]
WITHOUT_DOOR = ["bundle", "demo", "export-model", "info", "link", "preview", "suggest"]
WITHOUT_TORCH = ["convert", "evaluate", "inspect", "link"]


def test_the_commands_and_their_doors() -> None:
    assert command_names() == COMMANDS
    doors = [path.read_text("utf-8") for path in (REPOSITORY / "tools").glob("*.py")]
    opened = [re.findall(r'run_command\("(.+?)"\)', door) for door in doors]
    assert sorted(opened) == [[name] for name in COMMANDS if name not in WITHOUT_DOOR]


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_names_every_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z].*\.$", text, flags=re.MULTILINE), name


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cellseg {name} ")
    assert "Exit status: 0" in text


def test_version_and_unknown_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--version"], ["train", "--version"]):
        with pytest.raises(SystemExit):
            main(words)
        assert capsys.readouterr().out == f"cellseg {cellseg.__version__}\n"
    with pytest.raises(SystemExit) as stopped:
        main(["trian"])
    assert stopped.value.code == 2
    assert "'trian'" in capsys.readouterr().err


def loaded_by(*words: str) -> str:
    """What `cellseg WORDS` has loaded of torch and the engine."""
    script = (
        "import sys\nfrom cellseg.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'detectron2') if m in sys.modules])"
    )
    done = run_program("-c", script, *words)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in WITHOUT_TORCH)])
def test_what_needs_no_torch_does_not_load_it(words: list[str]) -> None:
    assert loaded_by(*words) == "[]"


def test_an_error_is_one_line_and_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(args: object) -> int:
        raise DatasetError("cells.yaml: nothing there")

    monkeypatch.setattr("cellseg.cli.info.run", fail)
    assert main(["info"]) == 1
    assert capsys.readouterr().err == "DatasetError: cells.yaml: nothing there\n"
    monkeypatch.setattr("cellseg.cli.info.run", lambda args: 7)
    assert run_command("info", []) == 7


def test_ctrl_c_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("cellseg.cli.info.run", stop)
    assert main(["info"]) == 130
    told = "what was written is whole; run it again to have the rest"
    assert capsys.readouterr().err == f"Interrupted (SIGINT): {told}\n"


def test_a_reader_that_has_gone_ends_a_command_quietly() -> None:
    """As `cellseg info | head` does."""
    reader, writer = os.pipe()
    os.close(reader)
    python_path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "cellseg", "info"],
        env={**os.environ, "PYTHONPATH": python_path},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    os.close(writer)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


ARGUMENTS = {
    "train": ["--config-file", "a.yaml"],
    "find-lr": ["--config-file", "a.yaml"],
    "predict": ["--config-file", "a.yaml", "--input", "x.png", "--output", "out"],
    "preview": ["--config-file", "a.yaml", "--output", "x.png"],
    "report": ["run"],
    "tune": ["run"],
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_overrides_are_alike_in_all_commands(name: str) -> None:
    overrides = ["SOLVER.BASE_LR", "-1e-3", "MODEL.WEIGHTS", "w.pth"]
    given = ARGUMENTS[name]
    for words in ([*given, *overrides], [*given, "--opts", *overrides]):
        assert parse_command(name, words).opts == overrides
    assert parse_command(name, given).opts == []
    both = parse_command(name, [*given, *overrides[:2], "--opts", *overrides[2:]])
    assert both.opts == overrides


def test_overrides_do_not_hide_the_options_behind_them() -> None:
    args = parse_command("report", ["run", "SEED", "3", "--output", "o.html"])
    assert (args.run_dir, args.output, args.opts) == (Path("run"), Path("o.html"), ["SEED", "3"])
    args = parse_command("train", ["--config-file", "a.yaml", "SEED", "3", "--eval-only"])
    assert (args.eval_only, args.opts) == (True, ["SEED", "3"])


@pytest.mark.parametrize("name", ["train", "find-lr", "predict", "preview"])
def test_several_config_files(name: str) -> None:
    more = ARGUMENTS[name][2:]
    for words in (["a.yaml", "b.yml"], ["a.yaml", "--config-file", "b.yml"]):
        args = parse_command(name, ["--config-file", *words, *more, "SEED", "3"])
        assert (args.config_file, args.opts) == (["a.yaml", "b.yml"], ["SEED", "3"])
    args = parse_command(name, ["--config-file=a.yaml", "b.yml", "SEED", "c.yaml", *more])
    assert (args.config_file, args.opts) == (["a.yaml", "b.yml"], ["SEED", "c.yaml"])


def test_a_yaml_file_behind_the_config_may_be_something_else() -> None:
    args = parse_command("inspect", ["--config-file", "base.yaml", "cells.yaml"])
    assert (args.config_file, args.dataset) == (Path("base.yaml"), "cells.yaml")


def test_overrides_behind_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths, key = ["a.png", "IMAGE.TIF"], "MODEL.WEIGHTS"
    Path("IMAGE.TIF").touch()
    assert split_off_overrides([*paths, key, "w.pth"]) == (paths, [key, "w.pth"])
    assert split_off_overrides(paths) == (paths, [])


def test_the_flags_of_detectron2s_parser() -> None:
    from detectron2.engine import default_argument_parser

    words = ["--config-file", "a.yaml", "--resume", "--eval-only", "--num-gpus", "2"]
    words += ["--num-machines", "2", "--machine-rank", "1", "--dist-url", "tcp://h:1", "SEED", "3"]
    wanted = vars(default_argument_parser().parse_args(words))
    found = vars(parse_command("train", words))
    assert found.items() >= (wanted | {"config_file": ["a.yaml"]}).items()
    few = words[:2]
    defaults = vars(default_argument_parser().parse_args(few)) | {"config_file": ["a.yaml"]}
    assert vars(parse_command("train", few)).items() >= defaults.items()


def test_a_parser_of_its_own_shows_the_description_as_it_is() -> None:
    parser = CommandParser("First.\n\n    an example   line\n", "cellseg x")
    assert "    an example   line" in parser.format_help()


def test_a_plugin_that_is_missing_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--predictions", "a", "--ground-truth", "b", "--plugin", "no_such.py"]
    assert run_command("evaluate", words) == 1
    assert "PluginError: plug-in 'no_such.py' not found" in capsys.readouterr().err


def test_a_plugin_is_known_before_choices_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "a_format_of_a_test.py"
    file.write_text("from cellseg.io import FORMATS\nFORMATS['x'] = FORMATS['coco_json']\n")
    words = ["--from", "x", "--to", "x", "--input", "a", "--split", "b", "--output", "c"]
    try:
        assert parse_command("convert", [*words, f"--plugin={file}"]).source == "x"
    finally:
        FORMATS.pop("x", None)
