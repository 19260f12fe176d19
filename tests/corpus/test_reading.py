"""Documents as they come out of files and of the Hub."""

import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from revocab.corpus.reading import Document, read_documents, read_rows, read_with_kinds
from revocab.errors import DataError


def write(path, content: bytes) -> str:
    if path.suffix == ".gz":
        content = gzip.compress(content)
    elif path.suffix == ".zst":
        content = zstandard.ZstdCompressor().compress(content)
    path.write_bytes(content)
    return str(path)


def jsonl(*texts: str, field: str = "text") -> bytes:
    return "".join(json.dumps({field: text}, ensure_ascii=False) + "\n" for text in texts).encode()


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_each_compression_gives_the_same_documents(tmp_path, suffix):
    texts = ["Herz", "ein\nzwei\n\ndrei", "βήτα 🧬"]
    assert list(read_documents([write(tmp_path / f"a.jsonl{suffix}", jsonl(*texts))])) == texts
    assert list(read_documents([write(tmp_path / f"a.txt{suffix}", b"eins\nzwei\n\n\n drei")])) == [
        "eins\nzwei",
        " drei",
    ]


def test_zstandard_files_may_be_several_frames(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(jsonl(text)) for text in "abc"))
    assert list(read_documents([str(path)])) == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("missing", [1, 2000])
def test_a_truncated_file_is_an_error_and_not_a_short_corpus(tmp_path, suffix, missing):
    generator = random.Random(0)
    texts = ["".join(generator.choices("abcdefgh ", k=3000)) for _ in range(200)]
    path = tmp_path / f"a.jsonl{suffix}"
    write(path, jsonl(*texts))
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DataError, match="damaged"):
        list(read_documents([str(path)]))


@pytest.mark.parametrize(
    "bad",
    [
        b"{not json",
        b"[1, 2]",
        b'"a string"',
        b'{"title": "no text"}',
        b'{"text": null}',
        b'{"text": 3}',
        b'{"text": "\xff"}',
        b'{"text": "\\ud800"}',
        b"[" * 100_000,
        b'{"text": ' + b"9" * 5000 + b"}",
    ],
)
def test_malformed_lines_are_counted_and_skipped(tmp_path, bad):
    counts = Counter()
    path = write(tmp_path / "a.jsonl", jsonl("good") + bad + b"\n\n" + jsonl("also good"))
    assert list(read_documents([path], counts=counts)) == ["good", "also good"]
    assert counts == {"read": 2, "malformed": 1}


def test_a_file_without_a_single_good_line_is_an_error_that_names_the_fields(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl("x", "y", field="abstract"))
    with pytest.raises(DataError, match=r"none of 2 rows .* 'text' .*'abstract'.*corpus.text_field"):
        list(read_documents([path], text_field="text"))
    assert list(read_documents([path], text_field="abstract")) == ["x", "y"]
    with pytest.raises(DataError, match="not JSON lines"):
        list(read_documents([write(tmp_path / "b.jsonl", b"plain text\nmore of it\n")]))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"latin \xe9t\xe9\n", r"1 of 1 lines are not, the first is line 1, its byte 6 is 0xe9"),
        (
            b"fine\n" * 16_000 + b"late \0 byte\n" * 4000,
            r"4000 of 20000 lines .* first is line 16001, .* NUL",
        ),
        (b"fine\n\n" * 8 + b"\xff\n", r"1 of 9 lines are not, the first is line 17, its byte 0 is 0xff"),
    ],
)
def test_a_text_file_that_is_not_utf8_text_names_the_line(tmp_path, content, said):
    with pytest.raises(DataError, match=said):
        list(read_documents([write(tmp_path / "a.txt", content)]))


@pytest.mark.parametrize("bad", [b"latin \xe9t\xe9", b"a NUL \0 byte"])
def test_a_few_lines_that_are_no_text_are_counted_and_skipped(tmp_path, bad, caplog):
    counts = Counter()
    path = write(tmp_path / "a.txt", b"first\n" + bad + b"\nsecond\n\n" + b"more\n\n" * 20 + bad + b"\n")
    if b"\0" in bad:  # within the first lines it is a sign of a binary file
        path = write(tmp_path / "a.txt", b"x" * 70_000 + b"\n\n" + (tmp_path / "a.txt").read_bytes())
    documents = list(read_documents([path], counts=counts))
    assert documents[-21:] == ["first\nsecond", *["more"] * 20]
    assert counts == {"read": len(documents), "malformed": 2}
    assert "skipped 2 malformed lines" in caplog.text


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_only_blank_lines_are_an_error(tmp_path, name):
    with pytest.raises(DataError, match="only blank lines"):
        list(read_documents([write(tmp_path / name, b"\n  \n\t\n")]))


def test_byte_order_marks_and_windows_line_ends_are_no_text(tmp_path):
    mark = b"\xef\xbb\xbf"
    assert list(read_documents([write(tmp_path / "a.jsonl", mark + jsonl("x"))])) == ["x"]
    assert list(read_documents([write(tmp_path / "a.txt", mark + b"one\r\ntwo\r\n\r\nthree")])) == ["one\ntwo", "three"]


paragraph_lines = st.text(st.characters(exclude_characters="\0\r\n", codec="utf-8"), min_size=1).filter(
    lambda line: not line.isspace() and not line.startswith("\ufeff")
)


@settings(max_examples=40, deadline=None)
@given(blocks=st.lists(st.lists(paragraph_lines, min_size=1, max_size=3), min_size=1, max_size=4))
def test_paragraphs_of_any_text_come_back(tmp_path_factory, blocks):
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    expected = ["\n".join(block) for block in blocks]
    path.write_bytes("\n\n".join(expected).encode())
    assert list(read_documents([str(path)])) == expected


@pytest.mark.parametrize("row", [{"abstract": "one", "title": "T"}, {"content": "one"}, {"text": "one", "body": "no"}])
def test_the_field_of_the_text_is_found_and_said(tmp_path, row, caplog):
    caplog.set_level("INFO")
    path = write(tmp_path / "a.jsonl", (json.dumps({"id": 7}) + "\n" + json.dumps(row) + "\n").encode())
    counts = Counter()
    assert list(read_documents([path], counts=counts)) == ["one"]
    assert counts == {"read": 1, "malformed": 1}
    said = [record.message for record in caplog.records if "is read from" in record.message]
    assert said == ([] if "text" in row else [f"{path}: the text is read from the field {next(iter(row))!r}"])


def test_the_first_row_with_a_text_decides_for_its_source_alone(tmp_path):
    first = write(tmp_path / "a.jsonl", b'{"abstract": "one"}\n{"text": "title"}\n{"abstract": "two"}\n')
    second = write(tmp_path / "b.jsonl", jsonl("three"))
    assert list(read_documents([first, second])) == ["one", "two", "three"]


def test_rows_without_any_known_field_are_an_error_that_names_theirs(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl("x", field="resumo"))
    with pytest.raises(DataError, match=r"one of text, abstract.*'resumo'; set evaluation\.text_field"):
        list(read_documents([path], key="evaluation.datasets"))


def write_parquet(path, **columns) -> str:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=700)
    return str(path)


def test_a_parquet_file_is_its_rows(tmp_path):
    texts = [f"abstract {number}" for number in range(3000)]  # several row groups and batches
    path = write_parquet(tmp_path / "a.parquet", pmid=list(range(3000)), abstract=texts)
    assert list(read_documents([path])) == texts
    assert list(read_documents([path], text_field="abstract")) == texts
    counts = Counter()
    holes = write_parquet(tmp_path / "b.parquet", text=["one", None, "two"])
    assert list(read_documents([holes], counts=counts)) == ["one", "two"]
    assert counts == {"read": 2, "malformed": 1}
    with pytest.raises(DataError, match=r"'pmid', 'abstract'; set corpus\.text_field"):
        list(read_documents([path], text_field="title"))


def test_rows_of_a_parquet_file_have_all_their_fields(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", text=["one"], choices=[["a", "b"]], gold=[1])
    assert list(read_rows(Path(path), key="evaluation.tasks")) == [{"text": "one", "choices": ["a", "b"], "gold": 1}]


@pytest.mark.parametrize("damage", ["end", "middle", "other"])
def test_a_damaged_parquet_file_is_one_line(tmp_path, damage):
    generator = random.Random(0)
    path = tmp_path / "a.parquet"
    write_parquet(path, text=["".join(generator.choices("abcdefgh ", k=300)) for _ in range(2000)])
    content = bytearray(path.read_bytes())
    if damage == "middle":
        content[2000:6000] = bytes(4000)
    path.write_bytes({"end": content[:-20], "middle": content, "other": b"text\n" * 99}[damage])
    with pytest.raises(DataError, match=r"a\.parquet is damaged") as caught:
        list(read_documents([str(path)]))
    assert "\n" not in str(caught.value)


def test_kinds_come_from_the_first_field_that_says_one_or_from_the_one_named(tmp_path):
    rows = [
        {"text": "a", "journal": "Heart", "source": "PMC"},
        {"text": "b", "source": 7, "area": "liver"},
        {"text": "c", "type": ["no", "word"], "source": " "},
    ]
    name = write(tmp_path / "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    assert list(read_with_kinds([name])) == [Document("a", "Heart"), Document("b", "7"), Document("c", None)]
    assert [document.kind for document in read_with_kinds([name], kind_field="area")] == [None, "liver", None]
    assert list(read_with_kinds([write(tmp_path / "b.txt", b"eins\n\nzwei")])) == [
        Document("eins", None),
        Document("zwei", None),
    ]


def test_of_a_parquet_file_kinds_are_read_beside_the_text(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", abstract=["a", "b"], journal=["X", None], other=[1, 2])
    assert list(read_with_kinds([path])) == [Document("a", "X"), Document("b", None)]
