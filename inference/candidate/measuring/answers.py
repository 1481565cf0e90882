"""How often a model that may answer `unsure` is wrong, and how often it is unsure, as parts of reports."""

from inference.candidate.measuring.evaluate import NUM_RESAMPLES, Scored
from inference.film.answers import answer_films
from inference.model.properties import Properties
from training.measures.rates import Share, bootstrap_answers
from training.record.evaluation import number

SHARES = ("present_answered_absent", "absent_answered_present", "unsure")


def describe_answers(properties: Properties, scored: Scored, name: str, seed: int) -> dict:
    """`error_rate`, and `findings`: finding -> its bounds, the patients behind them, and SHARES with 95% intervals.

    properties: those of the variant `name`, which can answer unsure. As in service, a film that is unlike the training
    data gets no answer; it counts as neither wrong nor unsure.
    """
    unsure = properties.unsure
    answers = answer_films(properties, scored.probabilities[name], scored.distances[name])
    rates = bootstrap_answers(scored.labels, answers, scored.patients, num_resamples=NUM_RESAMPLES, seed=seed)
    facts = [key for key in unsure if key != "error_rate"]
    return {
        "error_rate": unsure["error_rate"],
        "findings": {
            finding: {key: unsure[key][place] for key in facts}
            | {share: _ends_of(getattr(rates, share), place) for share in SHARES}
            for place, finding in enumerate(properties.findings)
        },
    }


def _ends_of(share: Share, place: int) -> dict[str, float | None]:
    return {key: number(values[place]) for key, values in share._asdict().items()}
