"""The items of the reporting sheet, in our own words, with the numbers that they have in the two checklists.

CLAIM: Tejani et al., "Checklist for Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update", Radiology:
Artificial Intelligence 2024, 6(4):e240300, doi:10.1148/ryai.240300 (items 1 to 44). TRIPOD+AI: Collins et al.,
"TRIPOD+AI statement: updated guidance for reporting clinical prediction models that use regression or machine learning
methods", BMJ 2024, 385:e078378, doi:10.1136/bmj-2023-078378 (items 1 to 27c). An item that the pipeline can answer only
in part stands in both lists.
"""

from collections.abc import Callable
from dataclasses import dataclass

from inference.model.reporting import about_data, about_model, about_results


@dataclass(frozen=True)
class Item:
    """Something that a report must say."""

    topic: str
    claim: str
    """numbers in CLAIM 2024, separated by spaces"""
    tripod: str
    """numbers in TRIPOD+AI, separated by spaces"""
    asks: str
    """what to write, if a person must"""
    answer: Callable[[dict], list[str]]
    """lines of Markdown from the model card; none if the card does not say"""


def nobody_knows(card: dict) -> list[str]:
    """The answer to what no pipeline can know."""
    return []


def for_a_person(topic: str, claim: str, tripod: str, asks: str) -> Item:
    """An item that only a person can answer."""
    return Item(topic, claim, tripod, asks, nobody_knows)


DATA = (
    Item("Sources", "7", "5a", "Name the data and their version.", about_data.sources),
    Item("Dates of the table", "", "5b", "Say when the table was made.", about_data.dates),
    Item("Which films were taken", "8", "6b", "Say by which rules films were kept or refused.", about_data.eligibility),
    Item("Preparation of the films", "9", "7", "Say what was done to the pixels.", about_data.preparation),
    Item("Parts of the data", "10", "", "Say which findings and files were used, and why.", about_data.subsets),
    Item("Removal of identities", "11", "", "Say how patients' identities were removed.", about_data.pseudonyms),
    Item("Missing values", "12", "11", "Say how unknown labels and values were treated.", about_data.missing),
    Item("Labels", "14", "8a", "Say what the labels are.", about_data.labels),
    Item("Predictors", "", "9a 9b", "Say what the model is given.", about_model.predictors),
    Item("Assignment to the splits", "19", "12a", "Say how films came into the splits.", about_data.partitions),
    Item("What the splits have in common", "20", "12a", "Say what keeps the splits apart.", about_data.disjoint),
    Item("Films in and out", "35", "20a 21", "Count films and patients, and those left out.", about_data.flow),
    Item("Who is on the films", "36", "20b", "Describe the patients of each split.", about_data.cases),
)
MODEL = (
    Item("Network", "22", "12c 22", "Describe the network, its input and its output.", about_model.network),
    Item("Output and thresholds", "22", "12g 15", "Say what the numbers mean.", about_model.outputs),
    Item("Software", "23", "", "Name the packages and their versions.", about_model.software),
    Item("Code", "42 43", "18f", "Name the code and its version.", about_model.code),
    Item("First weights", "24", "12c", "Say how the weights were initialised.", about_model.start),
    Item("Training", "25", "12b 12c", "Give loss, optimiser, schedule and length.", about_model.training),
    Item("Rare findings", "25", "13", "Say how the loss weighs rare findings.", about_model.imbalance),
    Item("Choice of the model", "26", "12c", "Say how the final model was chosen.", about_model.selection),
    Item("Ensembling", "27", "12c", "Say whether models were combined.", about_model.ensembling),
    Item("Changes after the training", "", "12f 24", "Say whether it was recalibrated.", about_model.updating),
)
RESULTS = (
    Item("Measures", "28", "12e", "Name the measures.", about_results.measures),
    Item("Uncertainty", "29", "12e", "Say how intervals were computed.", about_results.uncertainty),
    Item("Internal test", "32", "12a", "Say on which films it was tested.", about_results.internal_test),
    Item("Performance", "37 38", "23a", "Give the measures with intervals.", about_results.performance),
    Item("A simple comparison", "38", "12e", "Compare with a simple model.", about_results.baseline),
    Item("Subgroups", "37", "14 23a", "Give the measures for groups of patients.", about_results.subgroups),
    Item("Several sites", "", "12d 23b", "Give the measures for each hospital.", about_results.clusters),
    Item("Robustness", "30", "", "Vary what may vary in practice.", about_results.robustness),
    Item("Explanation", "31", "", "Say how answers are explained.", about_results.explanation),
    Item("External test", "33", "20c 23a", "Test on films of another hospital.", about_results.external_test),
)
USE = (
    Item("Intended use", "3 41", "3b", "Say what the model is for.", about_results.use),
    Item("Known limits", "40", "26", "Name the limits.", about_results.limits),
    Item("Poor input", "", "27a", "Say what happens with a poor film.", about_results.poor_input),
)
PARTS = {"Data": DATA, "Model and training": MODEL, "Results": RESULTS, "Use": USE}
"""heading -> items that the pipeline answers if its records allow it"""

PEOPLE = (
    for_a_person("Title and abstract", "1 2", "1 2", "Name the method and the task in the title; summarise the study."),
    for_a_person(
        "Clinical question",
        "3",
        "3a 3b",
        "Which decision would the model support, at which point of care, for which patients and users? What is there "
        "already?",
    ),
    for_a_person("Inequalities", "", "3c", "Which groups are known to be served worse, and what does that mean here?"),
    for_a_person("Aims", "4 6", "4", "What does the study want to show: a new model, an evaluation, both?"),
    for_a_person("Design", "5", "", "Were the films collected for this study or before it?"),
    for_a_person(
        "Origin of the films",
        "7",
        "5a 5b 6a",
        "Which hospitals, departments and years? Why these data, and whom do they represent?",
    ),
    for_a_person("Patients", "8", "6b 6c", "Who was eligible clinically, and which treatments may show on the films?"),
    for_a_person("Acquisition", "13", "9b", "Devices, exposure, positions, file formats of the films as taken."),
    for_a_person(
        "Reference standard",
        "14 15",
        "8a",
        "What does a positive label mean: words in a report, a reader's opinion, CT, follow-up? Why this standard?",
    ),
    for_a_person(
        "Who labelled",
        "16 17 18",
        "8b 8c 9c",
        "Readers, experience, instructions, what they knew; how far they agree; how the test films were labelled.",
    ),
    for_a_person("Privacy", "11", "", "Who removed identities, how, and what could still identify a patient?"),
    for_a_person("Sample size", "21", "10", "How many patients were planned, and why are they enough?"),
    for_a_person(
        "Choices in the analysis",
        "25 28 29",
        "12b 12c 12e",
        "Why this network and these measures? Which other settings were tried, on which films?",
    ),
    for_a_person("Fairness", "30", "14", "Which groups matter for this use, why, and how large a gap is acceptable?"),
    for_a_person("Sites compared", "33", "16 20c", "How do films, patients and labels of the test sites differ?"),
    for_a_person("Errors", "39", "23a", "What do missed and false findings share? misses.csv of a test names groups."),
    for_a_person("Interpretation", "41", "25", "What do the results mean beside other models and readers?"),
    for_a_person("Limits in your setting", "40", "26", "What would break here: prevalence, devices, labels, sample?"),
    for_a_person("Users", "41", "27b", "Who would work with it, with which training, and what must they do?"),
    for_a_person("Next steps", "41", "27c", "Which study must follow before anybody relies on it?"),
    for_a_person("Ethics", "", "17", "Which board approved or waived the study, and did patients consent?"),
    for_a_person("Registration and protocol", "34 42", "18c 18d", "Number in a registry; place of the protocol."),
    for_a_person("Availability", "43", "18e 18f", "Where, and on which terms, are data, model and code to be had?"),
    for_a_person("Patients' part in the study", "", "19", "Were patients or the public involved, and how?"),
    for_a_person("Funding and interests", "44", "18a 18b", "Who paid, with which influence? Interests of the authors."),
)
"""items that no pipeline can answer, or not alone"""
