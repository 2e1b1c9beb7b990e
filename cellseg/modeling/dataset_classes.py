"""Whether the classes of a data set are those of the model."""

from __future__ import annotations

from cellseg.errors import ConfigError
from cellseg.modeling.registry_check import is_subclass
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN

DECLARED = "cellseg"
"""The `evaluator_type` of data sets that a declaration describes, whose class numbers are right."""


def check_classes(cfg: CfgNode, name: str, *, read: bool = False) -> None:
    """Check that a data set has as many classes as the model, whoever registered it.

    A class more than the model has would be learned as background; one less ends in an error after
    hours of training.

    Args:
        cfg: of the model.
        name: in DatasetCatalog.
        read: read a set that user code registered, as its classes are mostly known only then, and
            look at the class of every cell; without it what is not known is not checked.

    Raises:
        ConfigError: it has another number of classes, or a cell is of none of them.
    """
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    is_declared = MetadataCatalog.get(name).get("evaluator_type") == DECLARED
    if not is_declared and not _counts_classes_in_heads(cfg):
        return
    entries = DatasetCatalog.get(name) if read and not is_declared else []
    classes = list(MetadataCatalog.get(name).get("thing_classes") or ())
    if classes and len(classes) != number:
        raise ConfigError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {number}, but {name} has {len(classes)} "
            f"({', '.join(map(str, classes))}); set it to {len(classes)}"
        )
    for entry in entries:
        for cell in entry.get("annotations", ()):
            if not 0 <= cell["category_id"] < number:
                raise ConfigError(
                    f"{name}: {entry.get('file_name')} has a cell with category_id "
                    f"{cell['category_id']}; expected 0 to {number - 1}, as "
                    f"MODEL.ROI_HEADS.NUM_CLASSES is {number}: class numbers are counted from 0, "
                    f"and {number} would be the background"
                )


def _counts_classes_in_heads(cfg: CfgNode) -> bool:
    """Whether the architecture reads NUM_CLASSES; one of another package may not."""
    return is_subclass(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, GeneralizedRCNN)
