"""Which annotation file belongs to which image: by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg.errors import DatasetError
from cellseg.images import is_readable_name, stem_of_image
from cellseg.io.base import raise_problems
from cellseg.io.file_names import name_key, say_beside, show_name


@dataclass(frozen=True)
class Pair:
    """An image, and the file that says where its cells are."""

    image_id: str
    image: Path
    annotation: Path


def match_pairs(
    folder: Path,
    images: Sequence[tuple[str, Path]],
    annotations: Sequence[tuple[str, Path]],
    *,
    no_images: str,
    other_name: str,
    image_name: str,
) -> list[Pair]:
    """Pairs of equal id, in the order of the images.

    Ids are compared in their composed Unicode form. An annotation file may also be named after
    the whole name of the image (`a.tif.geojson`), or keep the `.ome` of `a.ome.tif`.

    Args:
        folder: named in the message.
        images: ids and files.
        annotations: ids and files.
        no_images: message where there is none at all.
        other_name: what an image without partner lacks, with {} for the id.
        image_name: what an annotation file without partner lacks, likewise.

    Raises:
        DatasetError: there are no images; all files without a partner, and of one id.
    """
    if not images:
        raise DatasetError(no_images)
    ids = {name_key(image_id) for image_id, _ in images}
    keyed = [(_partner_key(name, ids), path) for name, path in annotations]
    partners = dict(keyed)
    problems = [
        *find_duplicates((name_key(image_id), path) for image_id, path in images),
        *find_duplicates(keyed),
        *_lonely(images, set(partners), annotations, other_name),
    ]
    problems += _lonely([(key, path) for key, path in keyed], ids, images, image_name)
    raise_problems(folder, problems)
    return [Pair(image_id, path, partners[name_key(image_id)]) for image_id, path in images]


def _partner_key(name: str, ids: Iterable[str] | Mapping[str, object]) -> str:
    """The id that an annotation file means."""
    key = name_key(name)
    if key in ids:
        return key
    shorter = (
        stem_of_image(key) if is_readable_name(key) else key,
        stem_of_image(f"{key}.tif"),
    )
    return next((one for one in shorter if one in ids), key)


def _lonely(
    files: Sequence[tuple[str, Path]],
    partners: Iterable[str],
    others: Sequence[tuple[str, Path]],
    missing: str,
) -> Iterator[str]:
    known = set(partners)
    for image_id, path in files:
        if name_key(image_id) not in known:
            names = [other.name for _, other in others]
            folders = {other.parent for _, other in others}
            names += [one.name for place in folders for one in place.iterdir()]
            beside = [name for name in dict.fromkeys(names) if name != path.name]
            wanted = missing.replace("{}", image_id)
            yield f"{path}: no {wanted}{say_beside(image_id, beside)}"


def find_duplicates(files: Iterable[tuple[str, Path]]) -> Iterator[str]:
    """A line for each file whose id is that of one before it."""
    first: dict[str, Path] = {}
    for key, path in files:
        other = first.setdefault(key, path)
        if other is not path:
            yield (
                f"{path.parent / show_name(path.name, [other.name])}: same id as "
                f"{show_name(other.name, [path.name])}"
            )
