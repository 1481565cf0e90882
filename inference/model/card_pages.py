"""The model card as pages for people: the card itself, and the reporting sheet. Imports no large library."""

from inference.model.card_text import TEXT_FILE, to_text
from inference.model.reporting.sheet import SHEET_FILE, to_sheet

PAGES = (TEXT_FILE, SHEET_FILE)


def pages_of(described: dict) -> dict[str, str]:
    """File name -> Markdown. described: the model card, as in model_card.json."""
    return {TEXT_FILE: to_text(described), SHEET_FILE: to_sheet(described)}
