"""The reporting sheet as Markdown, from the model card."""

from conf.words import RESEARCH_USE
from inference.model.reporting.items import PARTS, PEOPLE, Item

SHEET_FILE = "reporting.md"
"""beside the model card, in a registered model's folder and in packages"""
INTRODUCTION = """\
For whoever reports a study of this model. The items follow [CLAIM 2024](https://doi.org/10.1148/ryai.240300) (Tejani et
al., Radiology: Artificial Intelligence 2024) and [TRIPOD+AI](https://doi.org/10.1136/bmj-2023-078378) (Collins et al.,
BMJ 2024) in our own words; the numbers are theirs. This sheet does not replace them: journals ask for the originals.

The first part was filled from the records of the pipeline: check it before you publish it. The second part is left to
you, because no record says it. Copy the sheet before you write into it: registering again makes a new one."""


def to_sheet(card: dict) -> str:
    """The sheet as Markdown. card: the model card, as in model_card.json.

    An item that the card cannot answer, because an older release wrote it or because it never happened, such as an
    external test, is left to a person.
    """
    model, answered, unanswered = card["model"], [], []
    for part, items in PARTS.items():
        lines = []
        for item in items:
            if answer := item.answer(card):
                lines += [f"**{item.topic}** ({numbers_of(item)})", "", *_as_paragraphs(answer), ""]
            else:
                unanswered.append(item)
        answered += [f"### {part}", "", *lines] if lines else []
    left = [*unanswered, *PEOPLE]
    known = sum(len(items) for items in PARTS.values()) - len(unanswered)
    return "\n".join(
        [
            f"# Reporting sheet: {model['network']}, {model['precision']}",
            "",
            f"**{RESEARCH_USE}** {known} items are answered, {len(left)} are left to a person.",
            "",
            INTRODUCTION,
            "",
            "## What the pipeline knows",
            "",
            *answered,
            "## What a person must still write",
            "",
            *[f"- [ ] **{item.topic}** ({numbers_of(item)}): {item.asks}" for item in left],
            "",
        ]
    )


def numbers_of(item: Item) -> str:
    """Such as `CLAIM 7; TRIPOD+AI 5a`."""
    parts = {"CLAIM": item.claim, "TRIPOD+AI": item.tripod}
    return "; ".join(f"{name} {', '.join(numbers.split())}" for name, numbers in parts.items() if numbers)


def _as_paragraphs(lines: list[str]) -> list[str]:
    """Sentences as items of a list, if there are several; tables and lists as they are."""
    is_plain = not any(line.startswith(("|", "- ")) for line in lines)
    return [f"- {line}" for line in lines] if is_plain and len(lines) > 1 else lines
