"""From images to cells: masks into pixels, the predictor, whole lists of files."""
