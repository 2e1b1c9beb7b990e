"""Numbers that training produces, and the writers that show or keep them.

with EventStorage(start_iter) as storage:
    for storage.iter in range(start_iter, max_iter):
        storage.put_scalar("total_loss", loss)      # anywhere: get_event_storage().put_scalar
        if storage.iter % 20 == 19:
            writer.write()
"""

from __future__ import annotations

from detectron2.utils.event_storage import EventStorage, get_event_storage, has_event_storage
from detectron2.utils.event_writers import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "get_event_storage",
    "has_event_storage",
]
