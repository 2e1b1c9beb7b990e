"""Kind 8: code that runs where nobody expects it."""

from __future__ import annotations

from pathlib import Path

from harness import Trial

REPORT = ("report", "run", "--output", "report.html")


def _name_plugin_in_run(folder: Path) -> None:
    """A run folder of somebody else's whose config names code beside it."""
    config = folder / "run" / "config.yaml"
    text = config.read_text("utf-8").replace("PLUGINS: []", "PLUGINS: ['./theirs.py']")
    config.write_text(text, "utf-8")
    (folder / "run" / "theirs.py").write_text("open('ran', 'w').close()\n", "utf-8")


def _did_not_run(folder: Path) -> str:
    return "the code ran" if list(folder.rglob("ran")) else ""


TRIALS = [
    Trial(8, "report of a run", REPORT, needs=("run", "data"), status=(0,)),
    Trial(
        8,
        "report of a run that names a plug-in",
        REPORT,
        needs=("run", "data"),
        prepare=_name_plugin_in_run,
        status=(0, 1),
        holds=_did_not_run,
    ),
]
