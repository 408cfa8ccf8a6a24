"""A confusion matrix as a picture."""

from collections.abc import Sequence

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

CELL, MARGIN, LONGEST = 26, 6, 16  # pixels, pixels, letters
SHOWN = 40  # classes; of more only colours


def confusion_picture(matrix: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(height, width, 3) uint8: rows are what is true, columns what was said, shades shares of a row.

    Args:
        matrix: (C, C) counts.
        classes: C names.
    """
    font, count = ImageFont.load_default(11), len(classes)
    names = [name[:LONGEST] for name in classes]
    cell = CELL if count <= SHOWN else 4
    left = MARGIN + (max(int(font.getlength(name)) for name in names) if count <= SHOWN else 0) + MARGIN
    sheet = PILImage.new("RGB", (left + cell * count + MARGIN, left + cell * count + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    for row in range(count):
        for column in range(count):
            x, y, share = left + column * cell, left + row * cell, float(shares[row, column])
            pale = round(255 * (1 - share))
            colour = (pale, pale, 255) if row == column else (255, pale, pale)
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), colour)
            if count <= SHOWN and matrix[row, column]:
                ink = "white" if share > 0.6 else "black"
                draw.text((x + cell / 2, y + cell / 2), str(matrix[row, column]), ink, font, anchor="mm")
        if count <= SHOWN:
            draw.text((left - MARGIN, left + row * cell + cell / 2), names[row], "black", font, anchor="rm")
    if count <= SHOWN:
        turned = PILImage.new("RGB", (left - MARGIN, cell * count), "white")
        pen = ImageDraw.Draw(turned)
        for column, name in enumerate(names):
            pen.text((0, column * cell + cell / 2), name, "black", font, anchor="lm")
        sheet.paste(turned.rotate(90, expand=True), (left, 0))  # names of the columns, read upwards
    return np.asarray(sheet)
