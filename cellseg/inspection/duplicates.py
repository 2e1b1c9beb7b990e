"""Images that show the same: exact copies, copies turned or changed a little, overlapping views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from cellseg.inspection.fingerprints import Fingerprint, Grey, resize

EXACT, TURNED, LIKE, VIEW = "copy", "turned copy", "like", "view"
LIKE_FROM = 0.85  # the hashes of images that show different things agree in half of their bits
VIEW_CORRELATION = 0.9
VIEW_SHARE = 0.15

_THUMBNAIL_PX = 32
_MARGIN_PX = _THUMBNAIL_PX - round(VIEW_SHARE * _THUMBNAIL_PX) + 1
_BACKGROUND_SIGMA_PX = 5.0
_CANDIDATE_CORRELATION = 0.6
_MAX_IMAGES_FOR_VIEWS = 2000


@dataclass(frozen=True)
class Duplicate:
    """Two images that show the same.

    Attributes:
        first, second: their numbers, first < second.
        kind: "copy" (all pixels equal), "turned copy" (equal after a flip or quarter turns),
            "like" (the same scene, perhaps turned, after noise, another contrast or compression),
            "view" (two views of one scene that overlap).
        likeness: 1 for copies; for "like" the share of equal bits of their perceptual hashes, for
            "view" the correlation of what they share.
        shared: share of the smaller image that the other shows too.
    """

    first: int
    second: int
    kind: str
    likeness: float = 1.0
    shared: float = 1.0


def find_duplicates(prints: Sequence[Fingerprint | None], *, views: bool = True) -> list[Duplicate]:
    """All pairs of images that show the same.

    Args:
        prints: one per image; None for those that could not be read.
        views: look for overlapping views too, which costs a comparison of every pair of images
            (left out above 2,000 images).

    Returns:
        One entry per pair, of the first kind that applies, by the images' numbers. An image with
        k copies is in a pair with the first of them only, and has no pairs of the other kinds
        with them. Images of one value are compared with nothing but copies.
    """
    found = _find_copies(prints)
    copies = {pair.second for pair in found}
    originals = {
        number: print_
        for number, print_ in enumerate(prints)
        if print_ is not None and number not in copies and np.ptp(print_.detail) > 0
    }
    found += _find_like(originals)
    if views and len(originals) <= _MAX_IMAGES_FOR_VIEWS:
        done = {(pair.first, pair.second) for pair in found}
        found += [v for v in _find_views(originals) if (v.first, v.second) not in done]
    return sorted(found, key=lambda pair: (pair.first, pair.second))


def _find_copies(prints: Sequence[Fingerprint | None]) -> list[Duplicate]:
    first: dict[str, int] = {}
    found = []
    for number, print_ in enumerate(prints):
        if print_ is None:
            continue
        original = first.setdefault(print_.any_way_up, number)
        if original != number:
            same = prints[original].content == print_.content  # type: ignore[union-attr]
            found.append(Duplicate(original, number, EXACT if same else TURNED))
    return found


def _find_like(prints: Mapping[int, Fingerprint]) -> Iterator[Duplicate]:
    """Pairs whose perceptual hashes agree, whatever way up."""
    numbers = list(prints)
    signs = np.array([prints[k].looks for k in numbers], np.float32) * 2 - 1
    for i, first in enumerate(numbers[:-1]):
        agreement = (signs[i + 1 :] @ signs[i, 0]).max(axis=1) / signs.shape[-1]  # from -1 to 1
        for j in np.flatnonzero((1 + agreement) / 2 >= LIKE_FROM).tolist():
            yield Duplicate(first, numbers[i + 1 + j], LIKE, float(1 + agreement[j]) / 2)


def _find_views(prints: Mapping[int, Fingerprint]) -> Iterator[Duplicate]:
    """Pairs that show the same in a part, at the same magnification and the same way up."""
    by_size: dict[int, list[int]] = {}
    for number, print_ in prints.items():
        by_size.setdefault(print_.longest_px, []).append(number)
    for members in by_size.values():
        thumbnails = {k: _make_thumbnail(prints[k].detail) for k in members}
        for i, j in combinations(members, 2):
            fit, shift = _find_best_shift(thumbnails[i], thumbnails[j])
            if fit >= _CANDIDATE_CORRELATION:
                likeness, shared = _compare_views(prints[i].detail, prints[j].detail, shift)
                if likeness >= VIEW_CORRELATION:
                    yield Duplicate(i, j, VIEW, likeness, shared)


def _make_thumbnail(detail: Grey) -> Grey:
    """Its rough look: the root against the rule of a few bright cells, less uneven light."""
    small = np.sqrt(resize(detail, _THUMBNAIL_PX, _THUMBNAIL_PX) - detail.min())
    small -= cv2.GaussianBlur(small, (0, 0), _BACKGROUND_SIGMA_PX)
    return np.asarray(small - small.mean(), np.float32)


def _shared_at_each_shift() -> Grey:
    """Share of a thumbnail that another one covers, by the shift (rows, columns) from -M to M."""
    along = 1 - np.abs(np.arange(-_MARGIN_PX, _MARGIN_PX + 1)) / _THUMBNAIL_PX
    return np.outer(along, along).astype(np.float32)


_SHARED = _shared_at_each_shift()


def _find_best_shift(first: Grey, second: Grey) -> tuple[float, tuple[float, float]]:
    """How well two thumbnails fit at their best shift, and this shift as a share of the sides.

    OpenCV compares the shared part with the whole second thumbnail: with a part of s of its energy
    that is equal, the answer is the root of s, by which it is divided again.
    """
    framed = np.pad(first, _MARGIN_PX)
    fit = cv2.matchTemplate(framed, second, cv2.TM_CCORR_NORMED) / np.sqrt(_SHARED)
    _, best, _, (x, y) = cv2.minMaxLoc(np.where(_SHARED >= VIEW_SHARE, fit, 0))
    return best, ((y - _MARGIN_PX) / _THUMBNAIL_PX, (x - _MARGIN_PX) / _THUMBNAIL_PX)


def _compare_views(first: Grey, second: Grey, shift: tuple[float, float]) -> tuple[float, float]:
    """Correlation of the shared part (as a whole, or of its blocks if that is less) and its share.

    The middle of the shared part is looked for in the first image with a template of the second.
    """
    height, width = (min(a, b) for a, b in zip(first.shape, second.shape))
    dy, dx = round(shift[0] * first.shape[0]), round(shift[1] * first.shape[1])
    slack = 2 + max(first.shape) // _THUMBNAIL_PX
    top, left = max(0, -dy) + slack, max(0, -dx) + slack
    bottom = min(second.shape[0], first.shape[0] - dy) - slack
    right = min(second.shape[1], first.shape[1] - dx) - slack
    if bottom - top < slack or right - left < slack:
        return 0.0, 0.0
    template = second[top:bottom, left:right]
    if template.std() < 1e-3 * max(1.0, float(np.abs(template).max())):
        return 0.0, 0.0
    y0, x0 = top + dy - slack, left + dx - slack
    area = first[y0 : bottom + dy + slack, x0 : right + dx + slack]
    score = cv2.matchTemplate(area, template, cv2.TM_CCOEFF_NORMED)
    _, whole, _, (col, row) = cv2.minMaxLoc(score)
    dy, dx = y0 + row - top, x0 + col - left
    there = area[row : row + template.shape[0], col : col + template.shape[1]]
    likeness = min(float(whole), _median_block_correlation(template, there))
    shared = (height - abs(dy)) * (width - abs(dx)) / (height * width)
    return likeness, float(np.clip(shared, 0, 1))


def _median_block_correlation(first: Grey, second: Grey) -> float:
    """Median of the correlations of 16 blocks: one bright cell in the same place is not enough.

    Blocks of one value say nothing; with fewer than four others the answer is 0.
    """
    found = []
    for rows_first, rows_second in zip(np.array_split(first, 4), np.array_split(second, 4)):
        for a, b in zip(
            np.array_split(rows_first, 4, axis=1), np.array_split(rows_second, 4, axis=1)
        ):
            if not a.size:
                continue
            a, b = a - a.mean(), b - b.mean()
            norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
            if norm > 1e-3 * a.size:
                found.append(float((a * b).sum()) / norm)
    return float(np.median(found)) if len(found) >= 4 else 0.0
