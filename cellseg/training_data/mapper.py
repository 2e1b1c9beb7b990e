"""From one entry of a dataset to the tensors that a model takes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from cellseg.errors import ConfigError, DatasetError, LabelError
from cellseg.images import ImageInput
from cellseg.training_data.augmentations import (
    LabelledImage,
    SameClassImages,
    annotations_to_labelled_image,
    build_cell_augmentations,
    build_copy_paste,
    labelled_image_to_annotations,
    needs_tight_boxes,
    read_labelled_image,
    scale_resizing,
)
from cellseg.training_data.label_masks import LabelMasks
from cellseg.training_data.moved_annotations import (
    transform_boxes,
    transform_masks,
    transform_polygons,
    transform_regions,
)
from cellseg.training_data.shared_memory import wait_for_room
from cellseg.training_data.uncounted_regions import UncountedRegions
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils, get_detection_dataset_dicts
from detectron2.data import transforms as T
from detectron2.structures import Instances
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class CellDatasetMapper:
    """Reads an image without clipping it, augments it with its cells, makes tensors.

    For an 8-bit image the result equals that of Detectron2's `DatasetMapper` with the same
    augmentations; other images are normalised first (`cellseg.images.ImageInput`), where
    Detectron2 would clip them to 8 bits. An image without cells stays in training, and crowd
    regions stay beside its cells, as what nobody counted.

    With mask format "bitmask" the masks are `LabelMasks`, made from a few label planes per image:
    the numbers are those of `BitMasks`, the cost is that of the image and not of its cells.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_input: ImageInput | None = None,
        use_masks: bool = True,
        mask_format: str = "bitmask",
        recompute_boxes: bool = False,
        copy_paste: Callable[[LabelledImage], LabelledImage] | None = None,
        ignore_uncounted: bool = True,
    ) -> None:
        """
        Args:
            is_train: give the annotations as instances, and paste cells.
            augmentations: applied in order to the image and its cells.
            image_input: how files are read; `ImageInput()` by default.
            use_masks: give the instances `gt_masks` beside their boxes.
            mask_format: "bitmask" gives `LabelMasks`, from RLEs and polygons; "polygon" gives
                Detectron2's `PolygonMasks`, from polygons only.
            recompute_boxes: make boxes tight around what cropping left of a mask.
            copy_paste: adds cells of another image, before all augmentations; None adds none.
            ignore_uncounted: give the instances of an image with crowd regions `uncounted`
                (`UncountedRegions`); Detectron2's mapper drops crowds, and so makes background.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_input = image_input or ImageInput()
        self.use_masks = use_masks
        if mask_format not in ("bitmask", "polygon"):
            raise ConfigError(
                f"INPUT.MASK_FORMAT is {mask_format!r}; expected 'bitmask' or 'polygon'"
            )
        self.mask_format = mask_format
        self.recompute_boxes = recompute_boxes and use_masks
        self.copy_paste = copy_paste
        self.ignore_uncounted = ignore_uncounted
        phase = "training" if is_train else "inference"
        logger.info("Augmentations in %s: %s", phase, list(augmentations))

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor from Detectron2's INPUT keys and CELLSEG.INPUT."""
        augmentations = detection_utils.build_augmentation(cfg, is_train)
        augmentations = scale_resizing(cfg, augmentations)
        crop = cfg.INPUT.CROP
        crops = is_train and crop.ENABLED
        if crops:  # before all else, so that its size is that of the file's pixels
            augmentations = [T.RandomCrop(crop.TYPE, crop.SIZE), *augmentations]
        copy_paste = None
        if is_train:
            augmentations = [*augmentations, *build_cell_augmentations(cfg)]
            entries = partial(get_detection_dataset_dicts, list(cfg.DATASETS.TRAIN))
            others = SameClassImages(entries, partial(read_labelled_image, cfg))
            copy_paste = build_copy_paste(cfg, others)
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_input": ImageInput.from_config(cfg),
            "use_masks": cfg.MODEL.MASK_ON,
            "mask_format": cfg.INPUT.MASK_FORMAT,
            "recompute_boxes": crops or (is_train and needs_tight_boxes(cfg)),
            "copy_paste": copy_paste,
            "ignore_uncounted": cfg.CELLSEG.TRAIN.UNCOUNTED_REGIONS == "ignored",
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment one image.

        Args:
            dataset_dict: an entry of a Detectron2 dataset; left as it is.

        Returns:
            Its entries less `annotations`, with `image` (tensor [3, H, W], uint8 or float32, range
            0 to 255) and, in training, `instances` (`gt_boxes`, `gt_classes`, `gt_masks`; without
            `gt_masks` if the image has no cell; with `uncounted` if some of it is not counted).

        Raises:
            ImageReadError: the image cannot be read.
            DatasetError: an annotation lacks a key, or its segmentation does not fit the image.
            TrainingError: in a loader's process, there is too little shared memory.
        """
        annotations = dataset_dict.get("annotations")
        entry = {key: each for key, each in dataset_dict.items() if key != "annotations"}
        entry = copy.deepcopy(entry)
        image = self.image_input.read_model_input(entry["file_name"], entry.get("page"))
        detection_utils.check_image_size(entry, image)
        try:
            if self.is_train and annotations is not None:
                crowds = [each for each in annotations if each.get("iscrowd", 0)]
                cells = [each for each in annotations if not each.get("iscrowd", 0)]
                image, cells = self._paste_cells(image, cells)
                pixels, instances = self._augment(image, cells, crowds)
                entry |= {"image": pixels, "instances": instances}
            else:
                entry["image"], _ = self._augment(image)
        except (KeyError, LabelError) as error:
            problem = f"no {error} in an annotation" if isinstance(error, KeyError) else error
            raise DatasetError(f"{entry['file_name']}: {problem}") from error
        wait_for_room(entry)
        return entry

    def _paste_cells(
        self, image: NDArray[Any], cells: list[dict[str, Any]]
    ) -> tuple[NDArray[Any], list[dict[str, Any]]]:
        """The image and its counted cells, with those that copy-paste adds."""
        if self.copy_paste is None or not cells:
            return image, cells
        given = annotations_to_labelled_image(image, cells)
        pasted = self.copy_paste(given)
        if pasted is given:
            return image, cells
        return pasted.image, labelled_image_to_annotations(pasted)

    def _augment(
        self,
        image: NDArray[Any],
        cells: list[dict[str, Any]] | None = None,
        crowds: Sequence[dict[str, Any]] = (),
    ) -> tuple[torch.Tensor, Instances | None]:
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        pixels = torch.from_numpy(augmented.image.transpose(2, 0, 1).copy())
        if cells is None:
            return pixels, None
        sizes_hw = image.shape[:2], augmented.image.shape[:2]
        instances = self._make_instances(cells, transforms, *sizes_hw)
        if crowds and self.ignore_uncounted:
            self._add_uncounted(instances, transform_regions(crowds, transforms, *sizes_hw))
        return pixels, detection_utils.filter_empty_instances(instances)

    def _make_instances(
        self,
        cells: list[dict[str, Any]],
        transforms: T.TransformList,
        old_hw: tuple[int, int],
        new_hw: tuple[int, int],
    ) -> Instances:
        instances = Instances(new_hw)
        instances.gt_boxes = transform_boxes(cells, transforms, new_hw)
        instances.gt_classes = torch.tensor(
            [int(cell["category_id"]) for cell in cells], dtype=torch.int64
        )
        if self.use_masks and cells and "segmentation" in cells[0]:
            segmentations = [cell["segmentation"] for cell in cells]
            instances.gt_masks = (
                transform_masks(segmentations, transforms, old_hw, new_hw)
                if self.mask_format == "bitmask"
                else transform_polygons(segmentations, transforms)
            )
            if self.recompute_boxes:
                instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return instances

    def _add_uncounted(self, instances: Instances, uncounted: torch.Tensor) -> None:
        """The field `uncounted`, unless a crop has left nothing of the regions.

        A cell that is annotated in a region, or that copy-paste put there, is counted.
        """
        if instances.has("gt_masks") and isinstance(instances.gt_masks, LabelMasks):
            uncounted &= (instances.gt_masks.planes <= 0).all(dim=0)
        if uncounted.any():
            instances.uncounted = UncountedRegions.of_cells(uncounted, len(instances))
