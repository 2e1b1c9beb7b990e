"""Packaging of cellseg; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_namespace_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "cellseg/__init__.py").read_text("utf-8"))[1]

setup(
    name="cellseg",
    version=VERSION,
    description="Instance segmentation of cells in microscopy images with Mask R-CNN",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The embedded engine is a folder without __init__.py that holds a package, hence "namespace".
    packages=find_namespace_packages(include=["cellseg", "cellseg.*"]),
    package_data={"": ["*.yaml", "*.css", "*.js", "*.j2", "py.typed"]},
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "yacs>=0.1.8",
        "numpy>=1.26",
        "scipy>=1.11",
        "opencv-python>=4.8",
        "pycocotools>=2.0.7",
        "pillow>=11.3",
        "tifffile>=2023.7.10",
        "matplotlib>=3.10",
        "tensorboard>=2.14",
        "tabulate>=0.9",
        "jinja2>=3.1",
        "termcolor>=2.3",
        "tqdm>=4.65",
        "pyyaml>=6.0",
        "cloudpickle>=2.2",
    ],
    extras_require={
        "dev": [
            "pytest>=8.4",
            "ruff>=0.6",
            "mypy>=1.11",
            "types-PyYAML",
            "types-tabulate",
            "omegaconf>=2.1",  # what the embedded engine does with it is tested
            "roifile>=2026.2.10; python_version >= '3.11'",
        ],
        # The site of the documentation: `mkdocs serve`.
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"],
        # ImageJ's ROI files; for Python 3.11 and newer.
        "imagej": ["roifile>=2026.2.10"],
        # Files of microscope makers, and TIFF compressions beyond deflate (docs/images.md).
        "microscopes": [
            "bioio>=3.6",
            "bioio-czi>=3.0.1",
            "bioio-nd2>=2.6",
            "bioio-lif>=2.0.1; python_version >= '3.11'",
            "imagecodecs",
        ],
        # Detectron2 is on no package index: this extra works where you have a wheel of your own
        # (pip install --find-links FOLDER 'cellseg[detectron2]'). Without it the embedded engine
        # runs.
        "detectron2": ["detectron2>=0.6"],
    },
)
