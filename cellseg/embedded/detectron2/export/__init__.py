"""Models for other programs: what tracing needs, without Caffe2 and scripting."""

from __future__ import annotations

from detectron2._missing import left_out_names

from .flatten import TracingAdapter

__all__ = ["TracingAdapter"]


__getattr__ = left_out_names(
    __name__,
    "Caffe2Model",
    "Caffe2Tracer",
    "add_export_config",
    "dump_torchscript_IR",
    "scripting_with_instances",
)
