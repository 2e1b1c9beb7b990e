"""Images that show the same: exact copies, copies turned or changed a little, overlapping views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from cellseg.inspection.fingerprints import THUMBNAIL_PX, Fingerprint, turn_all_ways
from numpy.typing import NDArray
from scipy import fft

LIKE_CORRELATION = 0.95
VIEW_CORRELATION = 0.9
VIEW_SHARE = 0.15
VIEW_SPREAD = 0.02

_ROWS_AT_ONCE = 256
_CANDIDATE_CORRELATION = 0.6
_MAX_IMAGES_FOR_VIEWS = 2000

EXACT, TURNED, LIKE, VIEW = "copy", "turned copy", "like", "view"


@dataclass(frozen=True)
class Twin:
    """Two images that show the same.

    Attributes:
        first, second: their numbers, first < second.
        kind: "copy" (all pixels equal), "turned copy" (equal after a flip or quarter turns),
            "like" (the same scene, perhaps turned, after noise, another contrast or compression),
            "view" (two views of one scene that overlap).
        likeness: correlation of what they share, 1 for copies.
        shared: share of the smaller image that the other shows too.
    """

    first: int
    second: int
    kind: str
    likeness: float = 1.0
    shared: float = 1.0


def find_twins(prints: Sequence[Fingerprint | None], *, views: bool = True) -> list[Twin]:
    """All pairs of images that show the same.

    Args:
        prints: one per image; None for those that could not be read.
        views: look for overlapping views too, which costs a comparison of every pair of images
            (left out above 2,000 images).

    Returns:
        One twin per pair, of the first kind that applies, by the images' numbers. An image with
        k copies is in a pair with the first of them only, and has no pairs of the other kinds
        with them.
    """
    known = [k for k, print_ in enumerate(prints) if print_ is not None and print_.thumbnail.any()]
    twins = _find_copies(prints)
    copies = {twin.second for twin in twins}
    originals = [k for k in known if k not in copies]
    thumbnails = [prints[k].thumbnail for k in originals]  # type: ignore[union-attr]
    like = [
        Twin(originals[i], originals[j], LIKE, likeness)
        for i, j, likeness in _find_like(thumbnails)
    ]
    twins += like
    if views and len(originals) <= _MAX_IMAGES_FOR_VIEWS:
        done = {(twin.first, twin.second) for twin in like}
        chosen = [prints[k] for k in originals]
        twins += [
            Twin(originals[i], originals[j], VIEW, likeness, shared)
            for i, j, likeness, shared in _find_views(chosen)  # type: ignore[arg-type]
            if (originals[i], originals[j]) not in done
        ]
    return sorted(twins, key=lambda twin: (twin.first, twin.second))


def _find_copies(prints: Sequence[Fingerprint | None]) -> list[Twin]:
    first: dict[str, int] = {}
    found = []
    for number, print_ in enumerate(prints):
        if print_ is None:
            continue
        original = first.setdefault(print_.any_way_up, number)
        if original != number:
            same = prints[original].content == print_.content  # type: ignore[union-attr]
            found.append(Twin(original, number, EXACT if same else TURNED))
    return found


def _find_like(thumbnails: Sequence[NDArray[np.float32]]) -> Iterator[tuple[int, int, float]]:
    """Pairs whose thumbnails correlate, whatever way up."""
    if not thumbnails:
        return
    plain = np.stack(thumbnails).reshape(len(thumbnails), -1)
    turned = np.stack(
        [np.stack(list(turn_all_ways(one))).reshape(8, -1) for one in thumbnails], axis=1
    )
    for start in range(0, len(plain), _ROWS_AT_ONCE):
        block = plain[start : start + _ROWS_AT_ONCE]
        likeness = np.max([block @ way.T for way in turned], axis=0)
        for i, j in np.argwhere(likeness >= LIKE_CORRELATION).tolist():
            if start + i < j:
                yield start + i, j, float(min(1.0, likeness[i, j]))


def _find_views(prints: Sequence[Fingerprint]) -> Iterator[tuple[int, int, float, float]]:
    """Pairs that show the same in a part, at the same magnification and the same way up."""
    if len(prints) < 2:
        return
    by_scale: dict[float, list[int]] = {}
    for number, print_ in enumerate(prints):
        by_scale.setdefault(
            round(THUMBNAIL_PX / max(print_.detail.shape) * print_.scale, 4), []
        ).append(number)
    for members in by_scale.values():
        for i, j, shift in _candidates([prints[k] for k in members]):
            first, second = prints[members[i]], prints[members[j]]
            likeness, shared = _compare_views(first.detail, second.detail, shift)
            if likeness >= VIEW_CORRELATION:
                yield members[i], members[j], likeness, shared


def _candidates(
    prints: Sequence[Fingerprint],
) -> Iterator[tuple[int, int, tuple[float, float]]]:
    """Pairs whose thumbnails fit well at some shift, and that shift as a share of the sides."""
    size = 2 * THUMBNAIL_PX
    frames = np.zeros((len(prints), size, size), np.float32)
    for frame, print_ in zip(frames, prints):
        frame[:THUMBNAIL_PX, :THUMBNAIL_PX] = print_.thumbnail
    inside = np.zeros((size, size), np.float32)
    inside[:THUMBNAIL_PX, :THUMBNAIL_PX] = 1
    spectra = fft.rfft2(frames)
    powers = fft.rfft2(frames**2)
    window = fft.rfft2(inside)
    weights = fft.irfft2(window * window.conj(), (size, size))
    enough = weights >= VIEW_SHARE * THUMBNAIL_PX**2
    for i in range(len(prints) - 1):
        # Energy of either image in the part that they share at each shift.
        shared = fft.irfft2(spectra[i] * spectra[i + 1 :].conj(), (size, size), workers=2)
        own = fft.irfft2(powers[i] * window.conj(), (size, size))
        other = fft.irfft2(window * powers[i + 1 :].conj(), (size, size), workers=2)
        spread = VIEW_SPREAD
        fit = np.where(
            enough & (own > spread) & (other > spread),
            shared / np.sqrt(np.maximum(own * other, 1e-9)),
            0,
        )
        best = fit.reshape(len(fit), -1).argmax(axis=1)
        for k in np.flatnonzero(fit.reshape(len(fit), -1).max(axis=1) >= _CANDIDATE_CORRELATION):
            shift = np.array(np.unravel_index(best[k], (size, size)))
            shift = np.where(shift >= THUMBNAIL_PX, shift - size, shift) / THUMBNAIL_PX
            yield i, int(i + 1 + k), (float(shift[0]), float(shift[1]))


def _compare_views(
    first: NDArray[np.float32], second: NDArray[np.float32], shift: tuple[float, float]
) -> tuple[float, float]:
    """Correlation of the shared part (as a whole, or of its blocks if that is less) and its share.

    The middle of the shared part is looked for in the first image with a template of the second.
    """
    height, width = (min(a, b) for a, b in zip(first.shape, second.shape))
    dy, dx = round(shift[0] * first.shape[0]), round(shift[1] * first.shape[1])
    slack = 2 + max(first.shape) // THUMBNAIL_PX
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


def _median_block_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
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
