"""Building the model of a config: what its parts refuse is said in terms of the config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import detectron2.modeling
from cellseg.arguments import check_argument, of_type
from cellseg.config import check_keys
from cellseg.errors import CellsegError, ConfigError
from cellseg.modeling.uncounted_regions import leave_out_uncounted
from cellseg.plugins import describe_plugin_error
from cellseg.system_errors import explain_system_error
from detectron2.config import CfgNode
from torch import nn


def build_model(cfg: CfgNode) -> nn.Module:
    """The model of a config, on its device, with random weights.

    Args:
        cfg: from `load_config`, or made by hand.

    Raises:
        InputTypeError: no config.
        ConfigError: a key has an impossible value, or the parts that are chosen do not go together.
    """
    with checked_building(cfg):
        model: nn.Module = detectron2.modeling.build_model(cfg)
    return leave_out_uncounted(model)


@contextmanager
def checked_building(cfg: Any) -> Iterator[None]:
    """Check a config, and say what goes wrong while a model is built from it.

    What no rule foresees, such as a number of channels that a norm does not divide, is said by the
    layer itself, in a ValueError, an AssertionError or whatever it uses. Errors of a plug-in's code
    and of the system stay what they are.

    Args:
        cfg: what the model is built from.
    """
    check_argument("cfg", cfg, of_type(CfgNode, "a config, as load_config gives it"))
    check_keys(cfg)
    try:
        yield
    except CellsegError:
        raise
    except Exception as error:
        if describe_plugin_error(error) or explain_system_error(error):
            raise
        raise ConfigError(
            f"the model cannot be built from the keys below MODEL: {type(error).__name__}: {error}"
        ) from error
