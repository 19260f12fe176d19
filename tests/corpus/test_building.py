"""The corpus that is built: nothing in both parts, nothing twice, never over budget, every text as it was."""

import hashlib
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from revocab.artifacts import Corpus
from revocab.corpus import build_corpus, read_documents
from revocab.corpus.building import drop_short_lines, fraction_of
from revocab.errors import ConfigError, DataError, ResourceError

DEFAULTS = {
    "text_field": "text",
    "size_gb": None,
    "byte_budget": 0,
    "deduplicate": True,
    "hash_name": "blake2b",
    "min_line_length": 0,
    "heldout_fraction": 0.3,
}


def build(texts, folder: Path | None = None, **options):
    """(train texts, held-out texts, counts) of a corpus built from a file with these texts."""
    with TemporaryDirectory() as temporary:
        source = Path(temporary) / "in.jsonl"
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        folder = folder or Path(temporary) / "corpus"
        counts = build_corpus(folder, [str(source)], **{**DEFAULTS, **options})
        corpus = Corpus.load(folder)
        assert corpus.counts == counts
        return list(corpus.train), list(corpus.heldout), counts


some_texts = st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda text: not text.encode().isspace()), min_size=1
)
few = settings(max_examples=40, deadline=None)


def build_or_skip(texts, **options):
    try:
        return build(texts, **options)
    except DataError:  # a handful of texts can all fall into the held-out part
        assume(False)


@few
@given(texts=some_texts)
def test_every_text_comes_back_once_in_file_order(texts):
    train, heldout, counts = build_or_skip(texts)
    assert set(train) | set(heldout) == set(texts)
    assert not set(train) & set(heldout)
    position = {text: index for index, text in reversed(list(enumerate(texts)))}
    for part in (train, heldout):
        assert [position[text] for text in part] == sorted(position[text] for text in part)
    assert len(train) + len(heldout) == len(set(texts)) == counts["kept"]
    assert counts["duplicates"] == len(texts) - len(set(texts))
    assert counts["bytes"] == sum(len(text.encode()) for text in set(texts))


@few
@given(texts=some_texts, extra=some_texts, data=st.data())
def test_the_split_depends_on_the_text_alone(texts, extra, data):
    train, heldout, _ = build_or_skip(texts)
    train_2, heldout_2, _ = build_or_skip(data.draw(st.permutations(texts)) + extra)
    assert set(train) <= set(train_2)
    assert set(heldout) <= set(heldout_2)


@few
@given(texts=some_texts)
def test_without_deduplication_no_document_is_in_both_parts_either(texts):
    train, heldout, counts = build_or_skip(texts * 2, deduplicate=False)
    assert sorted(train + heldout) == sorted(texts * 2)
    assert not set(train) & set(heldout)
    assert counts["duplicates"] == 0


@few
@given(texts=some_texts, budget=st.integers(1, 200))
def test_the_budget_keeps_the_longest_beginning_that_fits(texts, budget):
    train, heldout, counts = build_or_skip(texts, byte_budget=budget)
    expected, size = [], 0
    for text in dict.fromkeys(texts):
        if size + len(text.encode()) > budget:
            break
        expected.append(text)
        size += len(text.encode())
    assert set(train) | set(heldout) == set(expected)
    assert counts["bytes"] == size <= budget
    assert counts["over_budget"] == (len(expected) < len(set(texts)))


@few
@given(texts=some_texts, excluded=st.data(), minimum=st.integers(0, 3), budget=st.sampled_from([0, 30]))
def test_every_document_that_was_read_is_counted_once(texts, excluded, minimum, budget):
    exclude = excluded.draw(st.lists(st.sampled_from(texts), max_size=2))
    _, heldout, counts = build_or_skip(texts, evaluated={"set": exclude}, min_line_length=minimum, byte_budget=budget)
    reasons = ("kept", "duplicates", "too_short", "excluded", "over_budget", "contaminated", "near_duplicates")
    assert counts["read"] == sum(counts[reason] for reason in reasons)
    assert counts["held_out"] == len(heldout)


def test_excluded_texts_are_in_neither_part():
    texts = [f"document {index}" for index in range(100)]
    train, heldout, counts = build(texts, evaluated={"set": texts[:10]})
    assert not set(texts[:10]) & set(train + heldout)
    assert counts["excluded"] == 10
    assert counts["kept"] == 90


def test_excluded_texts_are_shortened_like_the_corpus():
    texts = ["a heading\nx\nthe body", "another text"]
    _, _, counts = build(texts, min_line_length=5, evaluated={"set": ["a heading\ny\nthe body"]}, heldout_fraction=0)
    assert counts["excluded"] == 1


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.7])
def test_the_share_held_out_is_the_one_asked_for(fraction):
    _, heldout, _ = build([f"text number {index}" for index in range(5000)], heldout_fraction=fraction)
    spread = (5000 * fraction * (1 - fraction)) ** 0.5
    assert abs(len(heldout) - 5000 * fraction) < 5 * spread


def test_nothing_is_held_out_at_zero():
    train, heldout, _ = build(["a", "b", "c"], heldout_fraction=0.0)
    assert (train, heldout) == (["a", "b", "c"], [])


def test_a_fraction_is_the_digest_as_a_number_below_one():
    assert fraction_of(b"\x00" * 16) == 0.0
    assert fraction_of(b"\x80" + b"\x00" * 15) == 0.5
    assert fraction_of(b"\xff" * 16) < 1.0


@pytest.mark.parametrize("name", ["md5", "sha1", "sha256", "blake2b", "sha3_512"])
def test_the_named_hash_decides_the_split(name):
    texts = [f"text {index}" for index in range(200)]
    _, heldout, _ = build(texts, hash_name=name)
    expected = [
        text
        for text in texts
        if int.from_bytes(hashlib.new(name, text.encode()).digest()[:8], "big") / 2**64 < DEFAULTS["heldout_fraction"]
    ]
    assert heldout == expected


@pytest.mark.parametrize("name", ["sha-256", "shake_128", "", "crc32"])
def test_an_unknown_hash_is_refused_with_those_there_are(name):
    with pytest.raises(ConfigError, match=r"corpus\.hash_name must be a digest of hashlib: blake2b"):
        build(["a"], hash_name=name)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ConfigError, match=r"corpus\.heldout_fraction"):
        build(["a"], heldout_fraction=fraction)


def test_byte_budget_beats_size_and_size_is_in_billions_of_bytes():
    texts = [f"{index:010d}" for index in range(100)]
    assert build(texts, size_gb=300 / 1e9)[2]["bytes"] == 300
    assert build(texts, size_gb=300 / 1e9, byte_budget=500)[2]["bytes"] == 500
    assert build(texts, size_gb=0)[2]["bytes"] == 1000


@pytest.mark.parametrize(
    ("text", "minimum", "expected"),
    [
        ("short\nlong enough\n\n\nas is", 0, "short\nlong enough\n\n\nas is"),
        ("short\nlong enough\nx", 6, "long enough"),
        ("long enough\n\nx\n\nlong again", 6, "long enough\n\nlong again"),
        ("x\n\nlong enough\n\ny", 6, "long enough"),
        ("   pad   \nlong enough", 6, "long enough"),
        ("ééééé\nlong enough", 5, "ééééé\nlong enough"),  # characters, not bytes
        ("a\nb", 2, ""),
    ],
)
def test_short_lines_are_dropped_and_paragraphs_stay_apart(text, minimum, expected):
    assert drop_short_lines(text, minimum) == expected


def test_documents_left_empty_are_dropped_and_counted():
    train, _, counts = build(["a\nb", "", "  \n ", "long enough"], min_line_length=3, heldout_fraction=0)
    assert train == ["long enough"]
    assert counts["too_short"] == 3


def test_nothing_left_is_an_error_that_counts_why():
    with pytest.raises(DataError, match=r"No training document.*2 read.*2 too short"):
        build(["a", "b"], min_line_length=10)
    with pytest.raises(DataError, match="budget is 3 bytes"):
        build(["four"], byte_budget=3)


def test_a_full_disk_is_one_line_that_names_the_folder(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "train.text").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="disk is full") as caught:
        build(["some text"], folder, heldout_fraction=0)
    assert str(folder) in str(caught.value)
    assert not (folder / "counts.json").exists()


def test_building_is_fast(tmp_path):
    """The bound is a tenth of what one core does, so that only a real regression fails."""
    line = json.dumps({"text": "a word and " * 200})
    source = tmp_path / "in.jsonl"
    with source.open("w") as stream:
        for index in range(5000):
            stream.write(line.replace("word", f"word{index}") + "\n")
    start = time.process_time()
    counts = build_corpus(tmp_path / "corpus", [str(source)], **DEFAULTS)
    seconds = time.process_time() - start
    assert counts["kept"] == 5000
    assert counts["bytes"] / seconds > 10e6


@pytest.mark.slow
def test_real_biomedical_text_builds_in_seconds(tmp_path):
    data = os.environ.get("REVOCAB_DATA")
    if not data:
        pytest.skip("REVOCAB_DATA names no folder")
    heldout = list(read_documents([f"{data}/bio.heldout.jsonl.zst"]))
    start = time.perf_counter()
    options = {**DEFAULTS, "heldout_fraction": 0.01}
    counts = build_corpus(tmp_path, [f"{data}/bio.train.jsonl.zst"], **options, evaluated={"set": heldout})
    assert time.perf_counter() - start < 5
    assert counts["kept"] > 15_000
    assert counts["excluded"] == 0  # the two files were cut apart
    assert counts["bytes"] == pytest.approx(41e6, rel=0.02)
