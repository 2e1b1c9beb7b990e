"""Model bundles: config, weights and card of a model in one folder or zip, with no code in it."""

from cellseg.models.archive import is_bundle
from cellseg.models.bundle import Bundle, bundle_file, open_bundle, write_bundle
from cellseg.models.card import MeasuredMetric, ModelCard, TrainingSet
from cellseg.models.carried import read_carried_config
from cellseg.models.finding import (
    ModelFiles,
    find_bundle,
    find_model,
    locate_bundle,
    suggest_model,
)

__all__ = [
    "Bundle",
    "MeasuredMetric",
    "ModelCard",
    "ModelFiles",
    "TrainingSet",
    "bundle_file",
    "find_bundle",
    "find_model",
    "is_bundle",
    "locate_bundle",
    "open_bundle",
    "read_carried_config",
    "suggest_model",
    "write_bundle",
]
