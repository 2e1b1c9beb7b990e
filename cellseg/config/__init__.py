"""Settings of cellseg: the table of keys, its defaults and checks, and where config files lie.

Imports neither torch nor detectron2 nor any room above; `cellseg.load_config` puts files, plug-ins
and the checks of the other rooms together. `python -m cellseg.config` writes the table as a page.
"""

from cellseg.config.checks import (
    check_combinations,
    check_diameters,
    check_keys,
    check_value,
    find_problems,
    numbers_by_name,
)
from cellseg.config.defaults import add_cellseg_config, value_of
from cellseg.config.files import ConfigTree, find_config_file, put_below, read_config_tree
from cellseg.config.keys import KEYS, Key
from cellseg.config.merging import describe_places, merge_given, pairs_to_tree, read_value

__all__ = [
    "KEYS",
    "ConfigTree",
    "Key",
    "add_cellseg_config",
    "check_combinations",
    "check_diameters",
    "check_keys",
    "check_value",
    "describe_places",
    "find_config_file",
    "find_problems",
    "merge_given",
    "numbers_by_name",
    "pairs_to_tree",
    "put_below",
    "read_config_tree",
    "read_value",
    "value_of",
]
