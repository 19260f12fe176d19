"""Multiple-choice questions: checked as they are read, and posed as a prompt with its possible answers."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

from revocab.errors import DataError

Style = Literal["text", "letters"]
EXPECTED = 'wanted {"question": TEXT, "context": TEXT (may be left out), "choices": [TEXT, ...], "gold": NUMBER}'


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt and what may follow it; one space stands between the two."""

    prompt: str
    choices: tuple[str, ...]
    gold: int  # place of the right answer, from 0


def read_items(rows: Iterable[Any], source: str) -> Iterator[dict[str, Any]]:
    """The rows that a task is made of, each checked, without fields of no concern.

    A row is `{"question", "choices", "gold"}` with an optional `context` (a passage that the question is about).
    Instead of `question` it may hold `prompt`: all that is to stand before the answer, used as it is.

    Raises:
        DataError: a row that is none of these (a test that grows smaller in silence would be another test), or no row.
    """
    number = 0
    for number, row in enumerate(rows, 1):
        problem = _problem(row)
        if problem:
            raise DataError(f"{source}: item {number} {problem}; {EXPECTED}.")
        item = {name: row[name] for name in ("prompt", "question", "context") if row.get(name)}
        yield item | {"choices": [choice.strip() for choice in row["choices"]], "gold": row["gold"]}
    if not number:
        raise DataError(f"{source} holds no question; {EXPECTED} on each line.")


def _problem(row: Any) -> str:
    """What is wrong with a row, as the end of a sentence; empty for a good one."""
    if not isinstance(row, Mapping):
        return "is not a JSON object"
    for name in ("prompt", "question", "context"):
        if not isinstance(row.get(name, ""), str | None):
            return f"has {row[name]!r:.60} as its {name}"
    if not (row.get("prompt") or row.get("question") or "").strip():
        return f"has no question (its fields: {', '.join(map(str, row))})"
    choices, gold = row.get("choices"), row.get("gold")
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(ascii_uppercase):
        return f"needs 2 to {len(ascii_uppercase)} choices and has {choices!r:.60}"
    if not all(isinstance(choice, str) and choice.strip() for choice in choices):
        return f"has a choice that is no text: {choices!r:.60}"
    if type(gold) is not int or not 0 <= gold < len(choices):
        return f"needs as gold the place of the right choice, 0 to {len(choices) - 1}, and has {gold!r:.60}"
    return ""


def pose(item: Mapping[str, Any], style: Style) -> Question:
    """An item as it is asked, zero-shot, in the words of lm-evaluation-harness.

    `text`: the answers themselves follow the prompt. `letters`: they stand in the prompt, and A, B, ... follow it. An
    item that brings its own `prompt` is asked with that and its answers themselves.
    """
    choices = tuple(item["choices"])
    if "prompt" in item:
        return Question(prompt=item["prompt"], choices=choices, gold=item["gold"])
    passage = f"Abstract: {item['context']}\n" if "context" in item else ""
    if style == "text":
        prompt = f"{passage}Question: {item['question']}\nAnswer:"
        return Question(prompt=prompt, choices=choices, gold=item["gold"])
    letters = ascii_uppercase[: len(choices)]
    listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip(letters, choices, strict=True))
    prompt = f"{passage}Question: {item['question']}\n{listed}Answer:"
    return Question(prompt=prompt, choices=tuple(letters), gold=item["gold"])
