"""Tasks known by name: where each is on the Hub, how its rows become items, and how it is asked.

To add one: an entry of `TASKS`, and a function that turns its rows into the items of `questions.read_items`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from revocab.errors import DataError
from revocab.evaluation.questions import Style


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the Hub, asked as lm-evaluation-harness asks it."""

    sources: tuple[str, ...]  # Hub specs owner/name:config:split
    item: Callable[[dict[str, Any]], dict[str, Any]]  # a row of them as an item
    style: Style
    general: bool = False  # not of medicine: what is lost there was forgotten

    def read(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row as an item.

        Raises:
            DataError: the data set has other columns, or other values in them, than it had.
        """
        try:
            return self.item(row)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            sources = ", ".join(self.sources)
            raise DataError(
                f"{sources}: a row is not as expected ({type(error).__name__}: {error}). "
                "Name a local file instead: evaluation.tasks=[FILE.jsonl]."
            ) from error


def _pubmedqa(row: dict[str, Any]) -> dict[str, Any]:
    choices = ["yes", "no", "maybe"]
    context = "\n".join(row["context"]["contexts"])
    return {
        "question": row["question"], "context": context, "choices": choices,
        "gold": choices.index(row["final_decision"]),
    }  # fmt: skip


def _medqa(row: dict[str, Any]) -> dict[str, Any]:
    choices = [row[f"ending{number}"] for number in range(4)]
    return {"question": row["sent1"], "choices": choices, "gold": int(row["label"])}


def _medmcqa(row: dict[str, Any]) -> dict[str, Any]:
    choices = [row[name] for name in ("opa", "opb", "opc", "opd")]
    return {"question": row["question"], "choices": choices, "gold": int(row["cop"])}


def _mmlu(row: dict[str, Any]) -> dict[str, Any]:
    return {"question": row["question"].strip(), "choices": list(row["choices"]), "gold": int(row["answer"])}


def _arc(row: dict[str, Any]) -> dict[str, Any]:
    labels = list(row["choices"]["label"])
    return {
        "question": row["question"], "choices": list(row["choices"]["text"]), "gold": labels.index(row["answerKey"]),
    }  # fmt: skip


def _hellaswag(row: dict[str, Any]) -> dict[str, Any]:
    begun = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    choices = [_without_wikihow_marks(ending) for ending in row["endings"]]
    return {"prompt": _without_wikihow_marks(begun), "choices": choices, "gold": int(row["label"])}


def _without_wikihow_marks(text: str) -> str:
    """`[title]` ends a heading, `[step]` and others are only layout."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


MEDICAL_SUBJECTS = (
    "anatomy", "clinical_knowledge", "college_biology", "college_medicine", "medical_genetics", "professional_medicine",
)  # fmt: skip

TASKS = {
    "pubmedqa": Task(sources=("qiaojin/PubMedQA:pqa_labeled:train",), item=_pubmedqa, style="text"),
    "medqa": Task(sources=("GBaker/MedQA-USMLE-4-options-hf:test",), item=_medqa, style="letters"),
    "medmcqa": Task(sources=("openlifescienceai/medmcqa:validation",), item=_medmcqa, style="letters"),
    "mmlu_medical": Task(
        sources=tuple(f"cais/mmlu:{subject}:test" for subject in MEDICAL_SUBJECTS), item=_mmlu, style="letters"
    ),
    "arc_easy": Task(sources=("allenai/ai2_arc:ARC-Easy:test",), item=_arc, style="text", general=True),
    "arc_challenge": Task(sources=("allenai/ai2_arc:ARC-Challenge:test",), item=_arc, style="text", general=True),
    "hellaswag": Task(sources=("Rowan/hellaswag:validation",), item=_hellaswag, style="text", general=True),
}
