"""How often answers at an error rate are wrong or unsure on films of another origin, as cells and as text."""

from inference.model.card_text import share_cells
from training.measures.cells import markdown_table

ANSWER_HEADS = ("present, answered absent", "absent, answered present", "unsure")


def answer_cells(report: dict, finding: str) -> list[str]:
    """The cells of ANSWER_HEADS for one finding."""
    return share_cells(report["unsure"]["findings"][finding])


def new_answer_cells(report: dict, finding: str) -> list[str]:
    """The cells of ANSWER_HEADS for one finding, of the recalibrated model on the films that were not fitted to."""
    return answer_cells(report["recalibration"]["after"], finding)


def answer_lines(described: dict, findings: list[str]) -> list[str]:
    """A paragraph and a table in Markdown; empty if the model does not answer unsure. described: see measure_calls."""
    if "unsure" not in described:
        return []
    rows = [[finding, *answer_cells(described, finding)] for finding in findings]
    return [
        f"Answers at an error rate of {described['unsure']['error_rate']:g}:",
        "",
        *markdown_table(["finding", *ANSWER_HEADS], rows),
        "",
    ]
