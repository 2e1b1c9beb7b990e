"""COCO's datasets under the names that model configs use.

They are looked for in the folder "coco" of $DETECTRON2_DATASETS, by default of "datasets", when
one of them is first asked for; nothing needs to be there before.
"""

from __future__ import annotations

import os

from ..catalog import MetadataCatalog
from .builtin_meta import _get_builtin_metadata
from .coco import register_coco_instances
from .coco_panoptic import register_coco_panoptic, register_coco_panoptic_separated

__all__ = ["register_all_coco"]


def _instances(year: int, split: str, images: str, file: str = "instances") -> dict[str, list[str]]:
    """Folder of images and file of annotations of one split, by its name."""
    folders = [f"coco/{images}{year}", f"coco/annotations/{file}_{split}.json"]
    return {f"coco_{year}_{split.replace(str(year), '')}": folders}


_PREDEFINED_SPLITS_COCO = {
    "coco": {
        **_instances(2014, "train2014", "train"),
        **_instances(2014, "val2014", "val"),
        **_instances(2014, "minival2014", "val"),
        **_instances(2014, "valminusminival2014", "val"),
        **_instances(2017, "train2017", "train"),
        **_instances(2017, "val2017", "val"),
        **_instances(2017, "test2017", "test", "image_info"),
        **_instances(2017, "test-dev2017", "test", "image_info"),
        **_instances(2017, "val2017_100", "val"),
    }
}
_PANOPTIC_SPLITS = ("train2017", "val2017", "val2017_100")


def register_all_coco(root: str) -> None:
    """Register COCO's instances and, under "..._panoptic", its panoptic annotations.

    Args:
        root: the folder that holds the folder "coco".
    """
    for family, splits in _PREDEFINED_SPLITS_COCO.items():
        for name, (images, file) in splits.items():
            image_root, json_file = os.path.join(root, images), os.path.join(root, file)
            register_coco_instances(name, _get_builtin_metadata(family), json_file, image_root)
    for split in _PANOPTIC_SPLITS:
        _register_panoptic(split, os.path.join(root, "coco"))


def _register_panoptic(split: str, folder: str) -> None:
    name = f"coco_2017_{split.replace('2017', '')}"
    instances = MetadataCatalog.get(name)
    panoptic = (
        os.path.join(folder, f"panoptic_{split}"),
        os.path.join(folder, "annotations", f"panoptic_{split}.json"),
    )
    register_coco_panoptic_separated(
        f"{name}_panoptic",
        _get_builtin_metadata("coco_panoptic_separated"),
        instances.image_root,
        *panoptic,
        os.path.join(folder, f"panoptic_stuff_{split}"),
        instances.json_file,
    )
    metadata = _get_builtin_metadata("coco_panoptic_standard")
    files = (*panoptic, instances.json_file)
    register_coco_panoptic(f"{name}_panoptic", metadata, instances.image_root, *files)


register_all_coco(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")))
