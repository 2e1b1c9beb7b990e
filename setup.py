"""Packaging of cellseg; tool settings are in pyproject.toml."""

import re
import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "cellseg/__init__.py").read_text("utf-8"))[1]
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "bioimageio.core>=0.9"]
MICROSCOPES = [
    "bioio>=3.6",
    "bioio-nd2>=2.6",
    "bioio-lif>=2.0.1",
    "pylibCZIrw>=5.0",
    "zarr>=3.0",
]
SLIDES = ["tiffslide>=3.0", "zarr>=3.0"]
NAPARI = ["napari>=0.7"]
DASK = ["dask>=2025.1", "distributed>=2025.1"]
SHIPPED = {"configs": "**/*.yaml", "datasets": "*.yaml"}


class BuildWithYaml(build_py):
    """Puts recipes and declarations into the package, where `cellseg.shipped` looks for them.

    In a checkout, and so in what `pip install -e` installs, they stay beside the package.
    """

    def run(self):
        super().run()
        if self.editable_mode:
            return
        for folder, pattern in SHIPPED.items():
            for path in sorted((ROOT / folder).glob(pattern)):
                target = Path(self.build_lib, "cellseg/shipped", path.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


setup(
    name="cellseg",
    version=VERSION,
    description="Instance segmentation of cells in microscopy images with Mask R-CNN",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)),
        "Topic :: Scientific/Engineering :: Bio-Informatics",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    # The embedded engine is a folder without __init__.py that holds a package, hence "namespace".
    packages=find_namespace_packages(include=["cellseg", "cellseg.*"], exclude=["*.__pycache__"]),
    package_data={
        "": ["*.yaml", "*.safetensors", "samples/*", "*.css", "*.js", "*.j2", "py.typed"],
        # Folders with a dot in their name are no packages.
        "cellseg.embedded.detectron2.model_zoo": ["configs/**/*.yaml"],
    },
    cmdclass={"build_py": BuildWithYaml},
    entry_points={
        "console_scripts": ["cellseg = cellseg.__main__:main"],
        "napari.manifest": ["cellseg = cellseg.napari:napari.yaml"],
    },
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "yacs>=0.1.8",
        "numpy>=1.26",
        "safetensors>=0.4.3",
        "scipy>=1.11",
        "opencv-python>=4.8",
        "pycocotools>=2.0.7",
        "pillow>=11.3",
        "imagehash>=4.3",
        "tifffile>=2023.7.10",
        "imagecodecs>=2023.7.10",  # LZW, JPEG, Zstandard and other compressions of TIFF; JPEG 2000
        "jinja2>=3.1",
        "regex>=2024.5.15",  # stops a pattern that searches for ever
        "matplotlib>=3.10",
        "tensorboard>=2.14",
        "tabulate>=0.9",
        "termcolor>=2.3",
        "tqdm>=4.65",
        "pyyaml>=6.0",
        "cloudpickle>=2.2",
    ],
    extras_require={
        "dev": [
            "pytest>=8.4",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.11",
            "import-linter>=2.1",
            "setuptools>=70.1",  # a test builds the wheel with it
            "types-PyYAML",
            "types-tabulate",
            "omegaconf>=2.1",  # what the embedded engine does with it is tested
            "roifile>=2026.2.10",
            *EXPORT,
            "zarr>=3.0.6",
            "ome-zarr>=0.11",  # reads what is written, in the tests
            "shapely>=2.0",
            "pandas>=2.2",  # reads the tables in tests
            "pyarrow>=16",
            "scikit-image>=0.25",  # measurements are compared with its regionprops
            "laptrack>=0.17",
            *DASK,
            *MICROSCOPES,  # what they read is tested
            *SLIDES,
        ],
        # Fuzzing of readers and loaders, `python tests/fuzz`: Linux.
        "fuzz": ["atheris>=2.3"],
        # The site of the documentation: `mkdocs serve`.
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        # Models for other programs: ONNX and bioimage.io (docs/export.md).
        "export": EXPORT,
        # ImageJ's ROI files.
        "imagej": ["roifile>=2026.2.10"],
        # OME-Zarr.
        "zarr": ["zarr>=3.0.6"],
        # Tables in Parquet beside those in CSV.
        "tables": ["pyarrow>=16"],
        # Cells over time: `cellseg link`.
        "track": ["laptrack>=0.17"],
        # Prediction by many machines: `cellseg predict --scheduler`.
        "dask": DASK,
        # Files of microscope makers, OME-Zarr (docs/images.md).
        "microscopes": MICROSCOPES,
        # Slides: SVS, NDPI, SCN, BIF.
        "slides": SLIDES,
        # The plug-in for napari. Which Qt napari runs on is whoever installs it to choose:
        # `pip install 'cellseg[napari]' 'napari[pyqt6]'`, or pyside6.
        "napari": NAPARI,
        # What its tests take; without it they are skipped.
        # PySide6 6.12.0 ends Python 3.11 with "deallocating None" after a while.
        "napari-test": [*NAPARI, "pytest-qt>=4.4", "PySide6-Essentials>=6.7,<6.11"],
    },
)
