"""The report of a run: one HTML file with metrics, charts and a gallery of images.

`cellseg.report.build.write_report` writes it; docs/report.md shows what is in it.
"""
