"""The words of the field: what sources call splits, sexes, views and ages. Every reader asks here.

Nothing is guessed from the beginning of a word. A word that is not known is kept aside, so that a run can count and
show it, or refuse it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from conf.words import View

if TYPE_CHECKING:
    # The service asks for words too, and does without pandas.
    import pandas as pd

# Ages above this are typing errors, such as the 413 years of ChestX-ray14's first release.
MAX_AGE_YEARS = 120
# Units of an age such as 018M (DICOM PS3.5, section 6.2, AS). A number without a unit is in years: most tables, and the
# DICOM files of the RSNA Pneumonia Challenge.
YEARS_PER_UNIT = {"": 1, "Y": 1, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}

UNKNOWN = ""
"""the meaning of a word with which a source says that it does not know, or that the contract has no word for it"""
_UNKNOWN = dict.fromkeys(("", "unknown", "unk", "u", "na", "nan", "none", "null", "missing", "unspecified"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("notavailable", "notapplicable", "ref", "value", "tbd", "xxx", "xxxx", "xxxxx"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("anonymous", "anonymized", "anonymised", "anon", "anonym", "deidentified"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("anonymouspatient", "anonymizedpatient", "anonymisedpatient", "removed"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("redacted", "withheld", "deleted", "noname", "noid", "nopatient", "nodata"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("nil", "undefined", "unavailable", "undisclosed", "nobody"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(
    (f"not{said}" for said in ("known", "given", "stated", "specified", "provided", "recorded", "reported")), UNKNOWN
)
_UNKNOWN |= dict.fromkeys(("unbekannt", "keineangabe", "anonymisiert", "nichtbekannt"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("inconnu", "inconnue", "anonyme", "anonymise", "nonconnu"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("desconocido", "desconocida", "anonimo", "anonima", "anonimizado", "sindatos"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("desconhecido", "desconhecida", "naoinformado", "ignorado"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("sconosciuto", "sconosciuta", "ignoto", "ignota", "anonimizzato"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("onbekend", "okand", "ukendt", "ukjent", "nieznany", "ismeretlen", "неизвестно"), UNKNOWN)
_UNKNOWN |= dict.fromkeys(("неизвестныи", "未知", "不明", "匿名"), UNKNOWN)
# German for "not stated", and SQL's NULL: without their signs they could be initials.
_UNKNOWN_AS_WRITTEN = ("k.a.", "k. a.", "\\n")
_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "entrenamiento", "entrainement", "addestramento"), "train"),
    **dict.fromkeys(("apprentissage", "allenamento", "treino", "treinamento"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "development", "tune", "tuning"), "val"),
    **dict.fromkeys(("validacion", "validierung", "validazione", "validacao"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "holdout", "prueba", "teste"), "test"),
}
# Words beside that of a split, as in `train_set`, `Test images` and `valdata`.
_BESIDE_SPLIT = ("set", "sets", "split", "data", "images", "image", "imgs")
_SEXES = {
    **dict.fromkeys(("f", "female", "woman", "girl"), "F"),
    **dict.fromkeys(("w", "weiblich", "frau", "femme", "feminin", "femminile", "femenino", "mujer", "ж", "女"), "F"),
    **dict.fromkeys(("feminino", "feminina", "femenina", "femmina", "donna", "kvinna", "kvinde", "vrouw"), "F"),
    **dict.fromkeys(("maschio", "uomo", "mand", "homem"), "M"),
    **dict.fromkeys(("m", "male", "man", "boy"), "M"),
    **dict.fromkeys(
        ("mannlich", "maennlich", "mann", "homme", "masculin", "maschile", "masculino", "hombre", "varon"), "M"
    ),
    **dict.fromkeys(("м", "男", "ferfi"), "M"),
    **dict.fromkeys(("o", "other", "d", "divers", "diverse"), UNKNOWN),
}
# View Position (DICOM PS3.3 C.8.1.1), the meanings of View Code Sequence (PS3.16 CID 4010), MIMIC-CXR, PadChest.
_VIEWS: dict[str, View | str] = {
    **dict.fromkeys(("pa", "posteroanterior"), "PA"),
    **dict.fromkeys(("ap", "anteroposterior"), "AP"),
    **dict.fromkeys(("l", "ll", "rl", "lat", "lateral", "llat", "rlat", "leftlateral", "rightlateral"), "LATERAL"),
    # Views for which the contract has no word: oblique, decubitus and lordotic ones, and of the ribs.
    **dict.fromkeys(("lld", "rld", "decubitus", "llo", "rlo", "lao", "rao", "lpo", "rpo", "oblique"), UNKNOWN),
    **dict.fromkeys(("lordotic", "aplordotic", "apaxial", "costal", "other"), UNKNOWN),
}
# Words behind AP or PA that say how the patient is placed, or how the film was taken.
_PLACED = ("horizontal", "vertical", "portable", "bedside", "sitting", "upright", "supine", "mobile", "erect", "semi")

_NO_FINDING = ("nofinding", "nofindings", "nosignificantfinding", "nosignificantfindings", "nofindingsnormal", "normal")
_NO_FINDING += ("withoutfinding", "withoutfindings", "healthy", "noabnormality", "noabnormalities", "unremarkable")
_NO_FINDING += ("keinbefund", "ohnebefund", "sinhallazgos", "senzareperti", "sansanomalie", "gesund", "sano", "sain")

# Body Part Examined (PS3.16, annex L), and what some devices write.
_CHEST = ("chest", "thorax", "torax", "lung", "mediastinum", "heart", "cxr", "torso", "wholebody")
_OTHER_BODY_PARTS = re.compile(
    "abdomen|ankle|arm|bladder|brain|breast|calcaneus|cervicalspine|clavicle|coccyx|colon|cspine|elbow|extremit|eye|face|"
    "femur|finger|foot|forearm|hand|head|hip|humerus|jaw|kidney|knee|leg|liver|lower|lspine|lumbar|mandible|maxilla|neck|"
    "nose|orbit|patella|pelvis|prostate|radius|sacrum|scapula|shoulder|sinus|skull|spine|sspine|stomach|teeth|thigh|"
    "thoracicspine|thumb|tibia|toe|tooth|tspine|ulna|upperlimb|wrist|zygoma"
)

_SPLIT_WORDS, _SEX_WORDS, _VIEW_WORDS = {"": UNKNOWN} | _SPLITS, _UNKNOWN | _SEXES, _UNKNOWN | _VIEWS
# In a Spanish column of H and M, M is mujer, a woman.
_M_IS_A_WOMAN = {"h", "hombre", "v", "varon", "mujer"}
# In a Hungarian column of F and N (nő), F is férfi, a man.
_F_IS_A_MAN = {"n", "no", "ferfi"}
# What a folder of a class may say of its films: none of these is a class beside others.
_SIDES = ("frontal", "left", "right")

Meaning = Callable[[str], str | None]


def split_of(word: str) -> str | None:
    """train, val or test; UNKNOWN for an empty cell; None for a word that is not known."""
    if (split := _SPLIT_WORDS.get(_plain(word))) is not None:
        return split
    tokens = [token for token in tokens_of(word) if not token.isdigit() and token not in _BESIDE_SPLIT]
    named = set(map(_split_named, tokens))
    return named.pop() if len(named) == 1 else None


def resembles_split(word: str) -> bool:
    """Whether a word of the name is one for a split, or the name is that of a fold, such as `covid_test` or `fold1`."""
    return bool(re.fullmatch(r"fold\d*", _plain(word)) or any(map(_split_named, tokens_of(word))))


def describes_films(name: str) -> bool:
    """Whether the name is a view, a side or a sex, such as `lateral`."""
    plain = _plain(name)
    return bool(plain in _SIDES or view_of(name) or _SEXES.get(plain))


def view_of(word: str) -> str | None:
    """PA, AP or LATERAL; UNKNOWN if the source says that it does not know; None for a word that is not known."""
    plain = _plain(word)
    meaning = _VIEW_WORDS.get(plain)
    if meaning is None and plain[:2] in ("ap", "pa"):
        rest = plain[2:]
        for placed in _PLACED:
            rest = rest.replace(placed, "")
        meaning = None if rest else plain[:2].upper()
    return meaning


def sexes_of(cells: Iterable[str]) -> Meaning:
    """What the words for sexes in this column mean: F or M; UNKNOWN; None for a word that is not known.

    The letter M is not understood in a column where words of a language in which it may stand for a woman (mujer) are
    more frequent than F, nor F where words of one in which it stands for a man (férfi) are more frequent than M, nor D
    (donna, or divers) in one without F, M and W.
    """
    counted: Counter[str] = Counter()
    for cell, number in Counter(cells).items():
        counted[_plain(cell)] += number
    meanings = dict(_SEX_WORDS)
    if sum(counted[word] for word in _M_IS_A_WOMAN) > counted["f"]:
        del meanings["m"]
    if sum(counted[word] for word in _F_IS_A_MAN) > counted["m"]:
        del meanings["f"]
    if not any(counted[word] for word in ("f", "m", "w")):
        del meanings["d"]
    return lambda word: meanings.get(_plain(word))


def says_no_finding(name: str) -> bool:
    """Whether a label of this name says that there is no finding."""
    return _plain(name) in _NO_FINDING


def shows_chest(word: str) -> bool | None:
    """Whether a film of this body part shows the chest; None for an empty or unknown word."""
    plain = _plain(word)
    if any(part in plain for part in _CHEST):
        return True
    return False if other_body_part(word) else None


def other_body_part(word: str) -> str:
    """The part of the word that names a body part, in capitals; empty if none is known."""
    found = next(filter(None, map(_OTHER_BODY_PARTS.match, (_plain(word), *tokens_of(word)))), None)
    return found[0].upper() if found else ""


def says_nothing(word: str) -> bool:
    """Whether the word says that the source does not know, such as `n/a`."""
    return _plain(word) in _UNKNOWN


def known_splits() -> str:
    """The words for each split, for messages."""
    return "; ".join(
        f"{split}: {', '.join(word for word, meaning in _SPLITS.items() if meaning == split)}"
        for split in ("train", "val", "test")
    )


def canonical(word: str, meaning: Meaning) -> str:
    """The contract's word, or UNKNOWN; a word that is not known stays as it is, so that it is counted."""
    found = meaning(word)
    return word if found is None else found


def understand(cells: "pd.Series", meaning: Meaning) -> tuple["pd.Series", "pd.Series"]:
    """The meaning of each cell, None if it is unknown or not understood; and the cells that were not understood.

    The second series has the same index; None where the cell was understood.
    """
    meanings = {cell: meaning(cell) for cell in cells.unique()}
    strange = cells.map({cell: cell if found is None else None for cell, found in meanings.items()})
    found = cells.map({cell: found or None for cell, found in meanings.items()})
    return found.astype(object).where(found.notna(), None), strange.astype(object).where(strange.notna(), None)


def age_of(cell: str) -> float | None:
    """A cell such as `58`, `060Y` or `018M` in years; None for anything else and for ages above MAX_AGE_YEARS."""
    parts = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]*)?)([YMWD]?)", cell)
    years = float(parts[1]) * YEARS_PER_UNIT[parts[2]] if parts else MAX_AGE_YEARS + 1
    return years if years <= MAX_AGE_YEARS else None


def parse_ages(cells: "pd.Series") -> "pd.Series":
    """The age of each cell in years, see age_of, Float32; NA for what is none."""
    return cells.map({cell: age_of(cell) for cell in cells.dropna().unique()}).astype("Float32")


def strange_numbers(cells: "pd.Series", numbers: "pd.Series") -> "pd.Series":
    """The cells that were not understood, None for the others. numbers: what the cells became, NA for unknown."""
    unknown = cells[numbers.isna()]
    strange = unknown[~unknown.map({cell: says_nothing(cell) for cell in unknown.unique()}).astype(bool)]
    return cells.astype(object).where(cells.index.isin(strange.index), None)


def tokens_of(word: str) -> list[str]:
    """The words and numbers of a name, plain, such as train and 1 of `Train_1` and `train1`, or Manual and Mask."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", word)
    return [_plain(token) for token in re.findall(r"[^\W\d_]+|\d+", spaced)]


def _split_named(token: str) -> str | None:
    """The split of a plain word such as train or trainset; None for another."""
    ends = ("", *_BESIDE_SPLIT)
    return next((_SPLITS[start] for end in ends if (start := token.removesuffix(end)) in _SPLITS), None)


def _plain(word: str) -> str:
    """The word's letters and digits, in lower case, without accents, blanks and signs; none of _UNKNOWN_AS_WRITTEN."""
    if word.strip().casefold() in _UNKNOWN_AS_WRITTEN:
        return ""
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    return "".join(re.findall(r"[^\W_]", "".join(c for c in decomposed if not unicodedata.combining(c))))
