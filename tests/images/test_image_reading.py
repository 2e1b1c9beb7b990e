"""Reading images as stored."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import builders
import numpy as np
import pytest
import tifffile
from cellseg import images
from cellseg.errors import ImageReadError
from cellseg.images import pictures
from image_files import FLOAT, GREY_8, GREY_16, RGB_8, RGB_16, RNG, with_alpha, write_raw_png
from PIL import Image


@pytest.mark.parametrize("image", [GREY_8, GREY_16, RGB_8, RGB_16], ids=lambda a: f"{a.dtype}")
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_values_stay_as_stored(tmp_path: Path, image: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        builders.write_png(path, image)
    else:
        photometric = "rgb" if image.ndim == 3 else "minisblack"
        tifffile.imwrite(path, image, photometric=photometric)
    found = images.read_image(path)
    assert found.dtype == image.dtype
    assert np.array_equal(found, image)
    assert images.read_image_hw(path) == (7, 11)


@pytest.mark.parametrize(
    ("colour_type", "image"), [(4, GREY_8), (4, GREY_16), (6, RGB_8), (6, RGB_16)]
)
def test_alpha_is_dropped_from_png(tmp_path: Path, colour_type: int, image: np.ndarray) -> None:
    path = tmp_path / "a.png"
    write_raw_png(path, with_alpha(image), colour_type)
    assert np.array_equal(images.read_image(path), image)


def test_alpha_is_dropped_from_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, with_alpha(RGB_16), photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(images.read_image(path), RGB_16)
    tifffile.imwrite(
        path, with_alpha(GREY_16), photometric="minisblack", extrasamples=["unassalpha"]
    )
    assert np.array_equal(images.read_image(path), GREY_16)
    assert images.read_image_hw(path) == (7, 11)


@pytest.mark.parametrize("image", [FLOAT, FLOAT.astype(np.float64), GREY_16.astype(np.int32) - 9])
def test_floats_and_signed_integers_from_tiff(tmp_path: Path, image: np.ndarray) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, image)
    found = images.read_image(path)
    assert found.dtype == image.dtype
    assert np.array_equal(found, image)


def test_kinds_of_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB_8.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(images.read_image(path), RGB_8)
    assert images.read_image_hw(path) == (7, 11)
    tifffile.imwrite(path, GREY_16, byteorder=">", bigtiff=True)
    assert np.array_equal(images.read_image(path), GREY_16)
    assert images.read_image(path).dtype.isnative
    tifffile.imwrite(path, GREY_16, compression="zlib", imagej=False, rowsperstrip=2)
    assert np.array_equal(images.read_image(path), GREY_16)
    tifffile.imwrite(path, GREY_16[None, None], imagej=True)
    assert np.array_equal(images.read_image(path), GREY_16)
    tifffile.imwrite(path, GREY_8 > 99)
    assert np.array_equal(images.read_image(path), np.where(GREY_8 > 99, 255, 0))


def test_kinds_of_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(GREY_8 > 99).save(path)
    assert np.array_equal(images.read_image(path), np.where(GREY_8 > 99, 255, 0))
    palette = Image.fromarray(GREY_8 % 3).convert("P")
    palette.putpalette([9, 8, 7, 60, 50, 40, 255, 0, 1])
    palette.save(path)
    colours = np.array([[9, 8, 7], [60, 50, 40], [255, 0, 1]])
    assert np.array_equal(images.read_image(path), colours[GREY_8 % 3])
    assert np.array_equal(images.read_label_image(path), GREY_8 % 3)


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.png", GREY_16)
    assert np.array_equal(images.read_image(tmp_path / "a.png"), GREY_16)


def test_jpeg_and_its_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture = Image.fromarray(np.tile(np.uint8([[250, 250, 10, 10]]), (2, 1)).repeat(8, 0))
    picture.save(path, quality=95)
    assert images.read_image(path).shape == images.read_image_hw(path) == (16, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned: what is stored on the left belongs at the top
    picture.save(path, exif=exif, quality=95)
    turned = images.read_image(path)
    assert turned.shape == images.read_image_hw(path) == (4, 16)
    assert turned[0].min() > 200
    assert turned[-1].max() < 60
    Image.fromarray(RGB_8).convert("CMYK").save(path)
    assert images.read_image(path).shape == (7, 11, 3)


def test_labels_of_many_bits(tmp_path: Path) -> None:
    labels = builders.labels_beyond_uint16()
    tifffile.imwrite(tmp_path / "a.tif", labels)
    assert np.array_equal(images.read_label_image(tmp_path / "a.tif"), labels)


@pytest.mark.parametrize(
    ("array", "says"), [(RGB_8, "none of them black"), (FLOAT, "a label image has")]
)
def test_what_is_no_label_image(tmp_path: Path, array: np.ndarray, says: str) -> None:
    path = tmp_path / "labels.tif"
    tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else None)
    with pytest.raises(ImageReadError, match=rf"labels.tif: .*{says}"):
        images.read_label_image(path)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 7, 11), np.uint8), r"found shape \[4, 7, 11\]"),
        (np.zeros((2, 3, 7, 11), np.uint8), r"found shape \[2, 3, 7, 11\]"),
        (np.zeros((7, 11), np.complex64), "complex64"),
        (np.full((7, 11), np.nan, np.float32), "77 of 77 values are not finite"),
        (np.where(np.eye(7) > 0, np.inf, 0), "7 of 49 values are not finite"),
    ],
)
def test_tiff_that_is_not_one_image(tmp_path: Path, array: np.ndarray, says: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="minisblack")
    with pytest.raises(ImageReadError, match=says) as caught:
        images.read_image(path)
    assert str(path) in str(caught.value)


def test_four_channels_without_alpha_are_not_cut_to_three(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    four = RNG.integers(0, 9, (7, 11, 4)).astype(np.uint8)
    tifffile.imwrite(path, four, photometric="rgb", extrasamples=["unspecified"])
    with pytest.raises(ImageReadError, match=r"\[7, 11, 4\]"):
        images.read_image(path)


def test_tiff_of_several_images(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(GREY_8)
        tiff.write(GREY_16[:3])
    with pytest.raises(ImageReadError, match=r"found 2 of shapes \[\[7, 11\], \[3, 11\]\]"):
        images.read_image_hw(path)


@pytest.mark.parametrize("name", ["a.png", "deep.png", "a.jpg", "a.tif", "packed.tif", "a.bmp"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_truncated_files(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    big = RNG.integers(0, 256, (90, 100)).astype(np.uint8)
    if name == "deep.png":
        builders.write_png(path, np.dstack([big] * 3).astype(np.uint16) * 256)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, big, compression="zlib" if name == "packed.tif" else None)
    else:
        Image.fromarray(big).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageReadError) as caught:
        images.read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [images.read_image, images.read_image_hw, images.read_label_image])
def test_no_image_at_all(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(ImageReadError, match="No such file"):
        read(tmp_path / "nothing.png")
    with pytest.raises(ImageReadError, match="directory"):
        read(tmp_path)
    (tmp_path / "text.png").write_text("these are not the pixels you are looking for")
    with pytest.raises(ImageReadError, match=r"text.png: cannot be read as an image"):
        read(tmp_path / "text.png")
    (tmp_path / "empty.tif").write_bytes(b"")
    with pytest.raises(ImageReadError, match="empty"):
        read(tmp_path / "empty.tif")


def test_a_png_that_only_one_decoder_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = builders.write_png(tmp_path / "a.png", RGB_16)
    monkeypatch.setattr(pictures.cv2, "imdecode", lambda *_: None)
    with pytest.raises(ImageReadError, match=r"a\.png: cannot be decoded"):
        images.read_image(path)


def test_implausibly_large_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    builders.write_png(tmp_path / "a.png", GREY_8)
    tifffile.imwrite(tmp_path / "a.tif", GREY_8, compression="zlib")
    for name in ("a.png", "a.tif"):
        with pytest.raises(ImageReadError, match=name):
            images.read_image(tmp_path / name)
        with pytest.raises(ImageReadError, match=name):
            images.read_image_hw(tmp_path / name)


def test_large_images_that_are_really_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not decoded as one piece may be of any size."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    large = RNG.integers(0, 9, (70, 80)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", large)
    tifffile.imwrite(tmp_path / "tiles.tif", large, compression="zlib", tile=(16, 16))
    tifffile.imwrite(tmp_path / "strips.tif", large, compression="zlib", rowsperstrip=2)
    np.save(tmp_path / "a.npy", large)
    for path in tmp_path.iterdir():
        assert images.read_image_hw(path) == (70, 80)
        assert np.array_equal(images.read_image(path), large)


def test_real_16_bit_tiff(real_datasets: Path) -> None:
    paths = sorted((real_datasets / "usiigaci" / "raw16").rglob("*.tif"))
    if not paths:
        pytest.skip("usiigaci/raw16 is not there")
    for path in paths:
        image = images.read_image(path)
        assert image.dtype == np.uint16
        assert image.max() > 255
        assert images.read_image_hw(path) == image.shape[:2] == (1022, 1024)


def test_names_with_everything_in_them(tmp_path: Path) -> None:
    folder = tmp_path / "Zellen è µm 細胞"
    folder.mkdir()
    for name in ("field 1 [a]*?.TIF", "Ä.Tiff", "ß.PNG", "ok.ome.tif"):
        path = folder / name
        if path.suffix == ".PNG":
            builders.write_png(tmp_path / "a.png", RGB_16)
            shutil.move(tmp_path / "a.png", path)
        else:
            tifffile.imwrite(path, RGB_16, photometric="rgb")
        os.chmod(path, 0o444)
        assert np.array_equal(images.read_image(path), RGB_16)
        assert np.array_equal(images.read_image(str(path)), RGB_16)
        assert images.read_image_hw(path) == (7, 11)
        os.remove(path)


def test_a_png_named_tif(tmp_path: Path) -> None:
    builders.write_png(tmp_path / "a.png", GREY_16)
    shutil.move(tmp_path / "a.png", tmp_path / "a.tif")
    assert np.array_equal(images.read_image(tmp_path / "a.tif"), GREY_16)
    assert images.read_image_hw(tmp_path / "a.tif") == (7, 11)


def test_half_precision_and_64_bits(tmp_path: Path) -> None:
    for dtype in (np.float16, np.int64, np.uint64, np.int8):
        image = (GREY_16 % 100).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", image)
        found = images.read_image(tmp_path / "a.tif")
        assert found.dtype == dtype
        assert np.array_equal(found, image)


def test_reading_leaves_no_file_open(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY_16)
    builders.write_png(tmp_path / "a.png", RGB_8)
    (tmp_path / "b.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:300])
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(5):
        images.read_image(tmp_path / "a.tif")
        images.read_image(tmp_path / "a.png")
        images.read_image_hw(tmp_path / "a.png")
        with pytest.raises(ImageReadError):
            images.read_image(tmp_path / "b.tif")
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert after == before
    assert not [w for w in recwarn if w.category is ResourceWarning]
