"""Write the table of keys as a page: python -m cellseg.config [docs/reference/keys.md]."""

from __future__ import annotations

import sys
from pathlib import Path

from cellseg.config.reference import keys_to_markdown

if __name__ == "__main__":
    page = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference/keys.md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(keys_to_markdown(), "utf-8")
