"""The cells of one image while they are corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.arguments import NUMBERS, check_argument, of_type
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray, check_label_image
from cellseg.cells.windows import Window
from cellseg.corrections.begin import keep_apart
from cellseg.corrections.candidates import find_candidate, read_candidates, write_candidates
from cellseg.corrections.done_windows import as_window, mark
from cellseg.corrections.events import ACCEPTED, BEGIN, DRAWN, FOUND, Cell, Change
from cellseg.corrections.masks import encode_masks, tight
from cellseg.corrections.record import ImageCells
from cellseg.corrections.repainting import Repainted, find_repainted
from cellseg.corrections.splitting import join_masks, split_mask
from cellseg.errors import CorrectionError
from cellseg.names import printable
from numpy.typing import ArrayLike, NDArray

_CELLS = of_type(CellInstances, "cells (CellInstances)")


class CorrectedImage(ImageCells):
    """The cells of one image, every change of which is on the disk when its method returns.

    No two cells share a pixel. An id is never given twice, not even after undoing. What is refused
    raises a CorrectionError, and nothing is changed. `CorrectionFolder.image` gives it; for one
    thread.
    """

    def begin(
        self,
        cells: CellInstances,
        source: str,
        *,
        threshold: float | None = None,
        replace: bool = False,
    ) -> IntArray:
        """Take what a model has found.

        A pixel belongs to the cell with the higher score; a cell that has none left is none. Found
        cells that nobody has looked at make room. With `replace` cells that were accepted or drawn,
        and windows that were done, stay as they are: of a new cell that lies in them by more than
        half nothing is taken, of others the rest.

        Args:
            cells: of the whole image; crowd regions are left out.
            source: the model's name.
            threshold: the score that a detection needed to be a cell; by default the lowest one.
            replace: whether an image with corrections may get new cells.

        Returns:
            int64 [N], the id of each of `cells`; 0 for those that are none.

        Raises:
            CorrectionError: the image has corrections, a class has no name, or the cells are those
                of an image of another size.
        """
        check_argument("cells", cells, _CELLS)
        self._check_size(cells.image_hw, "the cells")
        self._check_classes(cells.classes.tolist())
        kept = {one: cell for one, cell in self.state.cells.items() if cell.state != FOUND}
        if (kept or self.state.done) and not replace:
            raise CorrectionError(
                f"{self.image_id} has corrections: {len(kept)} cells that were accepted or drawn, "
                f"{len(self.state.done)} windows that are done. `replace` keeps these, and takes "
                "new cells for the rest. Nothing was changed"
            )
        taken = self.label_image()
        taken[np.isin(taken, self.state.open_ids)] = 0
        for one in self.state.done:
            taken[one.rows, one.columns] = 1
        masks = keep_apart(cells, taken != 0)
        texts = encode_masks(list(masks.values()), self.image_hw)
        given = np.zeros(len(cells), np.int64)
        change: dict[int, Cell | None] = dict.fromkeys(self.state.open_ids)
        for new_id, (number, text) in enumerate(zip(masks, texts), self.state.next_id):
            kind, score = int(cells.classes[number]), float(cells.scores[number])
            change[new_id] = Cell(kind, score, FOUND, text)
            given[number] = new_id
        if threshold is None:
            threshold = float(cells.scores.min()) if len(cells) else self.state.threshold
        self._do(BEGIN, Change(change, source=printable(source), threshold=float(threshold)))
        return given

    def accept(self, ids: ArrayLike) -> None:
        """Say that cells are right; nothing happens to those that were accepted or drawn.

        Args:
            ids: of one cell or of several.
        """
        self._do(
            "accept",
            Change(
                {
                    one: replace(cell, state=ACCEPTED)
                    for one, cell in self._find(ids).items()
                    if cell.state == FOUND
                }
            ),
        )

    def reject(self, ids: ArrayLike) -> None:
        """Say that cells, one or several, are none; they are gone."""
        self._do("reject", Change(dict.fromkeys(self._find(ids))))

    def set_class(self, ids: ArrayLike, class_number: int) -> None:
        """Give cells, one or several, a class; whoever does so has looked: they are accepted.

        Args:
            ids: of the cells.
            class_number: place among the folder's classes.
        """
        self._check_classes([class_number])
        new = {
            one: replace(
                cell,
                class_number=int(class_number),
                state=ACCEPTED if cell.state == FOUND else cell.state,
            )
            for one, cell in self._find(ids).items()
        }
        changed = {one: cell for one, cell in new.items() if cell != self.state.cells[one]}
        self._do("set_class", Change(changed))

    def merge(self, ids: ArrayLike, *, apart: bool = False) -> int:
        """Make one cell of several; it has id, class and score of the largest, and is accepted.

        A gap of up to two free pixels between them becomes part of the cell.

        Args:
            ids: of two cells or more.
            apart: also cells that lie further apart become one, in pieces.

        Returns:
            The id.
        """
        found = self._find(ids)
        if len(found) < 2:
            raise CorrectionError("merging takes two cells or more; found one. Nothing was changed")
        masks = {one: self._canvas.masks[one] for one in found}
        joined = join_masks(masks, self._canvas.labels, apart=apart)
        largest = max(masks, key=lambda one: (np.count_nonzero(masks[one][0]), -one))
        change: dict[int, Cell | None] = dict.fromkeys(found)
        (text,) = encode_masks([joined], self.image_hw)
        change[largest] = replace(found[largest], state=ACCEPTED, mask=text)
        self._do("merge", Change(change))
        return largest

    def split(self, cell_id: int, line_rc: ArrayLike) -> tuple[int, int]:
        """Cut a cell in two along a line; both parts are accepted.

        Args:
            cell_id: of the cell.
            line_rc: float [K, 2], (row, column) of two points of the line or more, pixels; the
                centre of the first pixel is (0, 0). It begins and ends outside the cell.

        Returns:
            The id of the larger part, which is that of the cell, and of the smaller one.
        """
        check_argument("line_rc", line_rc, NUMBERS)
        line = np.asarray(line_rc, np.float64)
        if line.ndim != 2 or line.shape[1] != 2 or len(line) < 2 or not np.isfinite(line).all():
            raise CorrectionError(
                "a line has two points or more, float [K, 2], (row, column); found shape "
                f"{list(line.shape)}"
            )
        ((one, cell),) = self._find(cell_id).items()
        parts = split_mask(self._canvas.masks[one], line, f"cell {one}")
        new_id = self.state.next_id
        texts = encode_masks(parts, self.image_hw)
        new = [replace(cell, state=ACCEPTED, mask=text) for text in texts]
        self._do("split", Change(dict(zip((one, new_id), new))))
        return one, new_id

    def draw(
        self, mask: ArrayLike, class_number: int = 0, *, offset_rc: Sequence[int] = (0, 0)
    ) -> int:
        """Add a cell that a person has drawn; cells below it lose the pixels that it has.

        Args:
            mask: of the whole image, or a window of it, [h, w]; nonzero is cell.
            class_number: place among the folder's classes.
            offset_rc: (row, column) of the window's first pixel.

        Returns:
            Its id.
        """
        check_argument("mask", mask, NUMBERS)
        self._check_classes([class_number])
        crop = np.asarray(mask) != 0
        ends = [at + length for at, length in zip(offset_rc, crop.shape)]
        inside = crop.ndim == 2 and min(offset_rc) >= 0 and np.less_equal(ends, self.image_hw).all()
        if not inside or not crop.any():
            raise CorrectionError(
                f"a mask of shape {list(crop.shape)} at {list(offset_rc)} with {int(crop.sum())} "
                f"pixels cannot be a cell of {self.image_id}, which has {self._size()}"
            )
        new_id, drawn = self.state.next_id, tight(crop, (int(offset_rc[0]), int(offset_rc[1])))
        window = np.s_[
            drawn[1][0] : drawn[1][0] + drawn[0].shape[0],
            drawn[1][1] : drawn[1][1] + drawn[0].shape[1],
        ]
        painted = self._canvas.labels[window].copy()
        painted[drawn[0]] = new_id
        change = self._repaint(painted, as_window(window, self.image_hw), class_number)[1]
        self._do("draw", change)
        return new_id

    def repaint(
        self,
        label_image: ArrayLike,
        class_number: int = 0,
        *,
        window: tuple[slice, slice] | None = None,
    ) -> Repainted:
        """Take what was painted, erased and filled in the label image.

        New labels are drawn cells; cells that were changed are accepted, those that are gone
        rejected. All of it is one event; none where nothing is different.

        Args:
            label_image: integers [H, W], ids as `label_image` gives them.
            class_number: of the new cells.
            window: (rows, columns) in which something may have been painted; the rest is not looked
                at. By default everywhere.
        """
        labels = check_label_image(label_image)
        self._check_size(labels.shape, "the label image")
        self._check_classes([class_number])
        one = as_window(window, self.image_hw)
        repainted, change = self._repaint(labels[one.rows, one.columns], one, class_number)
        self._do("repaint", change)
        return repainted

    def _repaint(
        self, painted: NDArray[Any], window: Window, class_number: int
    ) -> tuple[Repainted, Change]:
        repainted, masks = find_repainted(self._canvas, painted, window, self.state.next_id)
        texts = dict(zip(masks, encode_masks(list(masks.values()), self.image_hw)))
        change: dict[int, Cell | None] = dict.fromkeys(repainted.gone)
        for one in repainted.painted_over:
            change[one] = replace(self.state.cells[one], mask=texts[one])
        for one in repainted.changed:
            cell = self.state.cells[one]
            state = ACCEPTED if cell.state == FOUND else cell.state
            change[one] = replace(cell, mask=texts[one], state=state)
        for one in repainted.new.values():
            change[one] = Cell(int(class_number), 1.0, DRAWN, texts[one])
        return repainted, Change(change)

    def mark_done(self, window: tuple[slice, slice] | None = None, done: bool = True) -> None:
        """Say that everything in a window is right: what is no cell there is background.

        Cells that lie in what is done as a whole are accepted.

        Args:
            window: (rows, columns); by default the whole image.
            done: False takes it back; the cells stay accepted.
        """
        one = as_window(window, self.image_hw)
        rectangles = mark(self.state.done, one, done)
        change: dict[int, Cell | None] = {}
        if done:
            right = np.zeros(self.image_hw, bool)
            for each in rectangles:
                right[each.rows, each.columns] = True
            for number in self.state.open_ids:
                crop, (row, col) = self._canvas.masks[number]
                if right[row : row + crop.shape[0], col : col + crop.shape[1]][crop].all():
                    change[number] = replace(self.state.cells[number], state=ACCEPTED)
        if change or set(rectangles) != set(self.state.done):
            self._do("mark_done", Change(change, done=rectangles))

    def keep_candidates(self, cells: CellInstances) -> None:
        """Keep detections beside that were not sure enough to be cells; those of before go.

        Args:
            cells: of the whole image; they may overlap.
        """
        check_argument("cells", cells, _CELLS)
        self._check_size(cells.image_hw, "the cells")
        self._check_classes(cells.classes.tolist())
        self._desk.check_writable(self._candidates_path)
        write_candidates(self._candidates_path, cells.counted)
        self.candidates = cells.counted

    @cached_property
    def candidates(self) -> CellInstances:
        """What `keep_candidates` was given last; no cells where nothing was."""
        return read_candidates(self._candidates_path, self.image_hw)

    @property
    def _candidates_path(self) -> Path:
        return self._journal.path.with_suffix(".candidates.json")

    def candidate_at(self, row: float, column: float) -> CellInstances | None:
        """The surest detection at a pixel that no cell has, less the pixels of cells; None without.

        Args:
            row, column: of the pixel; a pixel's centre has whole numbers.
        """
        found = find_candidate(self.candidates, self._canvas, round(row), round(column))
        if found is None:
            return None
        number, (crop, at) = found
        one = self.candidates[[number]]
        return CellInstances.from_crops(
            [crop], [at], self.image_hw, scores=one.scores, classes=one.classes
        )

    def add_candidate(
        self, row: float, column: float, class_number: int | None = None
    ) -> int | None:
        """Make a cell of the detection at a pixel (`candidate_at`); it is accepted.

        Args:
            row, column: of the pixel.
            class_number: place among the folder's classes; by default as the model says.

        Returns:
            Its id; None where there is no detection.
        """
        found = self.candidate_at(row, column)
        if found is None:
            return None
        kind = int(found.classes[0]) if class_number is None else int(class_number)
        self._check_classes([kind])
        new_id = self.state.next_id
        text = found.to_rles()[0]["counts"]
        self._do(
            "add_candidate", Change({new_id: Cell(kind, float(found.scores[0]), ACCEPTED, text)})
        )
        return new_id
