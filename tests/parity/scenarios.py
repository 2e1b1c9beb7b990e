"""All that is compared between engines: each scenario returns a tree of numbers and texts.

They use the public interface of `detectron2` only, so they run on whichever engine is imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from config_scenarios import config_defaults, model_zoo_configs, model_zoo_parameters
from evaluation_scenarios import coco_figures
from model_scenarios import cascade_mask_rcnn, mask_rcnn, mask_rcnn_group_norm, parameters
from project_scenarios import point_rend, semantic_heads
from training_scenarios import five_steps, optimizer, random_order
from variant_scenarios import augmented_at_test_time, variants

SCENARIOS: dict[str, Callable[[], dict[str, Any]]] = {
    scenario.__name__: scenario
    for scenario in (
        config_defaults,
        model_zoo_configs,
        model_zoo_parameters,
        parameters,
        mask_rcnn,
        cascade_mask_rcnn,
        mask_rcnn_group_norm,
        variants,
        point_rend,
        semantic_heads,
        augmented_at_test_time,
        optimizer,
        random_order,
        five_steps,
        coco_figures,
    )
}
