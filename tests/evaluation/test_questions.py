import re

import pytest

from revocab.errors import DataError
from revocab.evaluation import TASKS, pose, read_items

GOOD = {"question": "Why?", "choices": ["this", " that "], "gold": 1}


def test_an_item_keeps_what_concerns_it():
    row = GOOD | {"context": "Once.", "subject": "anatomy"}
    assert list(read_items([row], "here")) == [
        {"question": "Why?", "context": "Once.", "choices": ["this", "that"], "gold": 1}
    ]


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (None, "JSON object"),
        (["a"], "JSON object"),
        ({}, "no question"),
        (GOOD | {"question": " "}, "no question"),
        (GOOD | {"question": 7}, "7"),
        (GOOD | {"context": ["a"]}, "context"),
        (GOOD | {"choices": ["one"]}, "choices"),
        (GOOD | {"choices": "ab"}, "choices"),
        (GOOD | {"choices": ["a", ""]}, "no text"),
        (GOOD | {"choices": ["a", 3]}, "no text"),
        (GOOD | {"choices": ["x"] * 27}, "26"),
        (GOOD | {"gold": 2}, "0 to 1"),
        (GOOD | {"gold": -1}, "-1"),
        (GOOD | {"gold": "B"}, "'B'"),
        (GOOD | {"gold": True}, "True"),
        ({"question": "Why?", "choices": ["a", "b"]}, "None"),
    ],
)
def test_a_row_that_is_no_question_is_one_line_with_its_number(row, named):
    with pytest.raises(DataError) as raised:
        list(read_items([GOOD, row], "here.jsonl"))
    message = str(raised.value)
    assert message.startswith("here.jsonl: item 2 ")
    assert named in message
    assert "\n" not in message


def test_an_empty_file_is_an_error():
    with pytest.raises(DataError, match="no question"):
        list(read_items([], "here.jsonl"))


def test_posed_as_text():
    question = pose(GOOD | {"context": "Once upon."}, "text")
    assert question.prompt == "Abstract: Once upon.\nQuestion: Why?\nAnswer:"
    assert question.choices == ("this", " that ")
    assert question.gold == 1


def test_posed_as_letters():
    question = pose(GOOD | {"choices": ["x", "y", "z"]}, "letters")
    assert question.prompt == "Question: Why?\nA. x\nB. y\nC. z\nAnswer:"
    assert question.choices == ("A", "B", "C")


@pytest.mark.parametrize("style", ["text", "letters"])
def test_an_own_prompt_is_used_as_it_is(style):
    item = {"prompt": "He sat", "choices": ["down", "up"], "gold": 0}
    question = pose(item, style)
    assert (question.prompt, question.choices) == ("He sat", ("down", "up"))


# One row of each known task, with the columns that its data set has on the Hub.
ROWS = {
    "pubmedqa": {
        "question": "Does it?", "context": {"contexts": ["One.", "Two."], "labels": ["AIM", "END"]},
        "long_answer": "No.", "final_decision": "no",
    },
    "medqa": {
        "sent1": "Does it?", "sent2": "", "ending0": "a", "ending1": "b", "ending2": "c", "ending3": "d", "label": 1,
    },
    "medmcqa": {"question": "Does it?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 1, "choice_type": "x"},
    "mmlu_medical": {"question": " Does it? ", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": 1},
    "arc_easy": {"question": "Does it?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"},
    "arc_challenge": {"question": "Does it?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
    "hellaswag": {
        "activity_label": "Roof", "ctx_a": "A man [title] sits.", "ctx_b": "he  rises", "ctx": "",
        "endings": ["and [step] runs.", "up."], "label": "1",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_the_rows_of_a_known_task_become_questions(name):
    (item,) = read_items([TASKS[name].read(ROWS[name])], name)
    question = pose(item, TASKS[name].style)
    assert question.gold == 1
    if name != "hellaswag":
        assert question.prompt.endswith("\nAnswer:")
        assert "Question: Does it?\n" in question.prompt


@pytest.mark.parametrize("name", TASKS)
def test_a_data_set_with_other_columns_is_one_line(name):
    with pytest.raises(DataError, match=r"not as expected .*evaluation\.tasks"):
        TASKS[name].read({"text": "Once."})


def test_hellaswag_is_asked_without_its_layout_marks():
    question = pose(TASKS["hellaswag"].item(ROWS["hellaswag"]), "text")
    assert question.prompt == "Roof: A man. sits. He rises"
    assert question.choices == ("and runs.", "up.")


@pytest.mark.parametrize("name", TASKS)
def test_a_known_task_names_data_sets_of_the_hub(name):
    for source in TASKS[name].sources:
        assert re.fullmatch(r"[\w-]+/[\w-]+(:[\w-]+)?:(train|validation|test)", source)
