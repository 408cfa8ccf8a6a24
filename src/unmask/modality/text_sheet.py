"""Paragraphs of coloured words with captions, as one array of pixels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

WIDTH, MARGIN, LINE, SIZE, BLANK = 900, 8, 20, 14, 28  # pixels
CAPTION, LINE_COLOUR = "#6b7280", "#9ca3af"


class Piece(NamedTuple):
    """A part of a text: its characters, None for a blank, and the colour behind it, None for white."""

    text: str | None
    colour: str | None


def text_sheet(paragraphs: Sequence[tuple[str, Sequence[Piece]]]) -> np.ndarray:
    """One paragraph below the other, each under its caption, lines broken between pieces.

    Args:
        paragraphs: (caption, pieces) of each.

    Returns:
        (height, width, 3) uint8.
    """
    font, small = ImageFont.load_default(SIZE), ImageFont.load_default(SIZE - 3)
    placed = []  # (x, y, width, piece's text, colour)
    captions = []
    y = MARGIN
    for caption, pieces in paragraphs:
        captions.append((y, caption))
        x, y = MARGIN, y + LINE
        for text, colour in pieces:
            shown = None if text is None else text.replace("\n", "\\n")
            width = BLANK if shown is None else int(font.getlength(shown)) + 1
            if x > MARGIN and x + width > WIDTH - MARGIN:
                x, y = MARGIN, y + LINE
                shown = None if shown is None else shown.lstrip(" ")
            placed.append((x, y, width, shown, colour))
            x += width
        y += LINE + MARGIN
    sheet = PILImage.new("RGB", (WIDTH, y), "white")
    draw = ImageDraw.Draw(sheet)
    for top, caption in captions:
        draw.text((MARGIN, top), caption, fill=CAPTION, font=small)
    for x, top, width, shown, colour in placed:
        if colour is not None:
            draw.rectangle((x, top, x + width - 1, top + LINE - 3), fill=colour)
        if shown is None:
            draw.rectangle((x + 3, top + LINE - 6, x + width - 3, top + LINE - 5), fill=LINE_COLOUR)
        else:
            draw.text((x, top), shown, fill="black", font=font)
    return np.asarray(sheet)
