"""Winogender sentences (Rudinger et al. 2018): as published, or made from templates."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from safety.audits import loading
from safety.audits.errors import AuditDataError

GENDERS = ("female", "male", "neutral")
_PRONOUNS = {
    "male": ("he", "him", "his", "himself"),
    "female": ("she", "her", "hers", "herself"),
    "neutral": ("they", "them", "their", "theirs", "themself", "themselves"),
}
_PLACEHOLDERS = {
    "$NOM_PRONOUN": ("she", "he", "they"),
    "$POSS_PRONOUN": ("her", "his", "their"),
    "$ACC_PRONOUN": ("her", "him", "them"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence with a pronoun that refers to one of two people.

    Attributes:
        id: Unique in its set.
        text: The sentence.
        pronoun: As it stands in the text.
        gender: Of the pronoun.
        occupation: The person named by an occupation.
        participant: The other person.
        is_occupation: Whether the pronoun refers to the occupation.
        share_of_women: Of the occupation in the US, in [0, 1], by the Bureau of Labor Statistics.
    """

    id: str
    text: str
    pronoun: str
    gender: str
    occupation: str
    participant: str
    is_occupation: bool
    share_of_women: float

    @property
    def candidates(self) -> tuple[str, str]:
        """Who the pronoun may refer to: the occupation, the participant."""
        other = self.participant if self.participant == "someone" else f"the {self.participant}"
        return f"the {self.occupation}", other

    @property
    def answer(self) -> int:
        """Index of the right candidate."""
        return 0 if self.is_occupation else 1

    @property
    def subset(self) -> str:
        """Whether labour statistics suggest the right answer.

        `stereotypical` where the pronoun's gender is the occupation's majority and refers to it,
        or is not and refers to the participant; `gotcha` otherwise; `neutral` for they.
        """
        if self.gender == "neutral":
            return "neutral"
        fits = (self.gender == "female") == (self.share_of_women > 0.5)
        return "stereotypical" if fits == self.is_occupation else "gotcha"


def load_sentences(path: Path) -> list[Sentence]:
    """Read `all_sentences.tsv` or `templates.tsv`, or the folder that has the former.

    `occupations-stats.tsv` beside it has the shares of women.

    Raises:
        AuditDataError: A file is damaged or of another format; names file, line and field.
    """
    file = path / "all_sentences.tsv" if path.is_dir() else path
    shares = _shares(file.parent / "occupations-stats.tsv")
    heading = next((text for _, text in loading.lines(file)), "")
    found = (
        _from_sentences(file, shares)
        if "sentid" in heading.split("\t")
        else _from_templates(file, shares)
    )
    return loading.at_least_one(file, found, "sentences")


def _shares(path: Path) -> dict[str, float]:
    columns = ("occupation", "bls_pct_female")
    return {
        loading.text_field(path, number, row, "occupation"): loading.number_field(
            path, number, row, "bls_pct_female", 0, 100
        )
        / 100
        for number, row in loading.table(path, columns, "\t")
    }


def _from_sentences(path: Path, shares: dict[str, float]) -> list[Sentence]:
    found = []
    for number, row in loading.table(path, ("sentid", "sentence"), "\t"):
        name = loading.text_field(path, number, row, "sentid").removesuffix(".txt")
        parts = name.split(".")
        if len(parts) != 4 or parts[2] not in ("0", "1") or parts[3] not in _PRONOUNS:
            raise AuditDataError(
                f"{path} line {number}: field 'sentid' is {name!r}; expected "
                "OCCUPATION.PARTICIPANT.ANSWER.GENDER with the answer 0 or 1"
            )
        occupation, participant, answer, gender = parts
        text = loading.text_field(path, number, row, "sentence")
        found.append(
            Sentence(
                id=name,
                text=text,
                pronoun=_pronoun(path, number, text, gender),
                gender=gender,
                occupation=occupation,
                participant=participant,
                is_occupation=answer == "0",
                share_of_women=_share(path, number, shares, occupation),
            )
        )
    return found


def _from_templates(path: Path, shares: dict[str, float]) -> list[Sentence]:
    columns = ("occupation(0)", "other-participant(1)", "answer", "sentence")
    found = []
    for number, row in loading.table(path, columns, "\t"):
        occupation, participant, answer, template = (
            loading.text_field(path, number, row, column) for column in columns
        )
        if answer not in ("0", "1"):
            raise AuditDataError(
                f"{path} line {number}: field 'answer' is {answer!r}; expected 0 or 1"
            )
        template = template.replace("$OCCUPATION", occupation).replace("$PARTICIPANT", participant)
        for index, gender in enumerate(GENDERS):
            text = template
            for placeholder, forms in _PLACEHOLDERS.items():
                text = text.replace(placeholder, forms[index])
            found.append(
                Sentence(
                    id=f"{occupation}.{participant}.{answer}.{gender}",
                    text=text,
                    pronoun=_pronoun(path, number, text, gender),
                    gender=gender,
                    occupation=occupation,
                    participant=participant,
                    is_occupation=answer == "0",
                    share_of_women=_share(path, number, shares, occupation),
                )
            )
    return found


def _pronoun(path: Path, number: int, text: str, gender: str) -> str:
    for word in re.findall(r"[A-Za-z]+", text):
        if word.lower() in _PRONOUNS[gender]:
            return str(word)
    raise AuditDataError(f"{path} line {number}: field 'sentence' has no {gender} pronoun")


def _share(path: Path, number: int, shares: dict[str, float], occupation: str) -> float:
    if occupation not in shares:
        raise AuditDataError(
            f"{path} line {number}: occupation {occupation!r} is not in occupations-stats.tsv"
        )
    return shares[occupation]
