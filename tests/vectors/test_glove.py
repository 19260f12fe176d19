import numpy as np
import pytest
import torch
from scipy import sparse

from revocab.errors import DataError
from revocab.vectors import glove_vectors
from revocab.vectors.cells import write_cells
from revocab.vectors.counting import units_per_count
from revocab.vectors.glove import Tables, Weighting, batch_size, fit, loss_and_errors, step
from revocab.vectors.pair_counts import kept_blocks

WEIGHTING = Weighting(x_max=10.0, alpha=0.75)


def small_case(seed=0, rows=7, dim=4, dtype=torch.float64):
    generator = np.random.default_rng(seed)
    counts = np.round(generator.gamma(0.7, 9.0, size=(rows, rows)), 2)
    counts = counts + counts.T
    counts[generator.random((rows, rows)) < 0.3] = 0
    tables = Tables.drawn(rows, dim, generator, "cpu", dtype)
    row, column = (torch.from_numpy(axis) for axis in np.nonzero(counts))
    return tables, row, column, torch.from_numpy(counts[counts > 0]).to(dtype), counts


def loss_by_definition(tables, counts):
    """Equation 8 of the paper with its weight (9), cell by cell in float64."""
    word, context = tables.word.double().numpy(), tables.context.double().numpy()
    total = 0.0
    for i, j in np.argwhere(counts > 0):
        weight = (counts[i, j] / 10.0) ** 0.75 if counts[i, j] < 10.0 else 1.0
        error = sum(word[i, d] * context[j, d] for d in range(word.shape[1] - 1))
        error += word[i, -1] + context[j, -1] - np.log(counts[i, j])
        total += weight * error**2
    return total


def reference_pass(tables, cells, learning_rate):
    """The authors' program on a list of (row, column, count): one cell at a time, number by number."""
    word, context = tables.word.numpy(), tables.context.numpy()
    word_squares, context_squares = tables.word_squares.numpy(), tables.context_squares.numpy()
    dim = word.shape[1] - 1
    for i, j, count in cells:
        error = word[i, :dim] @ context[j, :dim] + word[i, dim] + context[j, dim] - np.log(count)
        scaled = learning_rate * (error if count > 10.0 else (count / 10.0) ** 0.75 * error)
        by_word = np.append(scaled * context[j, :dim], scaled)
        by_context = np.append(scaled * word[i, :dim], scaled)
        word[i] -= by_word / np.sqrt(word_squares[i])
        context[j] -= by_context / np.sqrt(context_squares[j])
        word_squares[i] += by_word**2
        context_squares[j] += by_context**2


def test_the_loss_is_the_definition():
    tables, row, column, count, counts = small_case()
    loss, _ = loss_and_errors(tables.word[row], tables.context[column], count, WEIGHTING)
    assert counts.max() > 10 > counts[counts > 0].min()
    assert float(loss) == pytest.approx(loss_by_definition(tables, counts), rel=1e-12)


def test_a_first_step_follows_the_gradient_of_half_the_loss():
    """AdaGrad's sums start at 1, so the first step is the learning rate times the gradient, repeated rows summed."""
    tables, row, column, count, _ = small_case()
    before = tables.word.clone(), tables.context.clone()
    word, context = (table.clone().requires_grad_() for table in before)
    (loss_and_errors(word[row], context[column], count, WEIGHTING)[0] / 2).backward()
    step(tables, row, column, count, WEIGHTING, 0.01)
    for table, old, leaf in zip((tables.word, tables.context), before, (word, context), strict=True):
        torch.testing.assert_close(old - table, 0.01 * leaf.grad, rtol=1e-10, atol=1e-14)


def test_repeated_rows_remember_the_sum_of_the_squares_of_their_steps():
    tables, row, column, count, _ = small_case()
    _, weighted = loss_and_errors(tables.word[row], tables.context[column], count, WEIGHTING)
    expected = np.ones(len(tables.word))
    np.add.at(expected, row.numpy(), (0.05 * weighted.numpy()) ** 2)
    step(tables, row, column, count, WEIGHTING, 0.05)
    np.testing.assert_allclose(tables.word_squares[:, -1].numpy(), expected, rtol=1e-12)
    assert (np.bincount(row.numpy()) > 1).all()


def test_batches_of_one_cell_are_the_authors_program():
    tables, row, column, count, _ = small_case()
    reference = Tables(
        *(getattr(tables, name).clone() for name in ("word", "context", "word_squares", "context_squares"))
    )
    for _ in range(5):
        for cell in zip(row.split(1), column.split(1), count.split(1), strict=True):
            step(tables, *cell, WEIGHTING, 0.05)
        reference_pass(reference, list(zip(row.tolist(), column.tolist(), count.tolist(), strict=True)), 0.05)
    for name in ("word", "context", "word_squares", "context_squares"):
        torch.testing.assert_close(getattr(tables, name), getattr(reference, name), rtol=1e-10, atol=1e-12)


def test_batches_reach_the_loss_of_the_authors_program(topical_corpus, counted, tmp_path, count_neighbours):
    counts = count_neighbours(topical_corpus, 15)[2:22][:, 2:22]
    pairs = kept_blocks(counted(topical_corpus, 15), np.arange(2, 22), 50)
    cells = write_cells(pairs, 210, units_per_count(15), tmp_path, np.random.default_rng(0))
    assert cells.number == counts.nnz
    assert batch_size(cells) > 20
    tables = Tables.drawn(20, 4, np.random.default_rng(1), "cpu", torch.float64)
    reference = Tables(
        *(getattr(tables, name).clone() for name in ("word", "context", "word_squares", "context_squares"))
    )
    losses = fit(tables, cells, WEIGHTING, 0.05, 60, np.random.default_rng(2))
    generator = np.random.default_rng(3)
    for _ in range(60):
        for block in cells.blocks(generator):
            reference_pass(reference, block.tolist(), 0.05)
    dense = counts.toarray() / units_per_count(15)
    ours, theirs = loss_by_definition(tables, dense), loss_by_definition(reference, dense)
    assert ours == pytest.approx(theirs, rel=0.05)
    assert theirs / cells.number < 0.02 * losses[0]


@pytest.mark.parametrize("cells_at_once", [1, 7, 1000])
def test_blocks_hold_every_cell_once_in_a_new_order(tmp_path, cells_at_once):
    pairs = np.triu(np.random.default_rng(4).integers(0, 3, size=(9, 9)) * 6)
    dense = pairs + pairs.T
    parts = [sparse.coo_matrix(np.where(np.arange(9)[:, None] % 2 == part, pairs, 0)) for part in (0, 1)]
    cells = write_cells(parts, np.count_nonzero(pairs), 3, tmp_path, np.random.default_rng(0), cells_at_once)
    generator, orders = np.random.default_rng(1), []
    for _ in range(2):
        found = np.concatenate(list(cells.blocks(generator)))
        orders.append(found.tolist())
        back = np.zeros((9, 9))
        np.add.at(back, (found["row"], found["column"]), found["count"])
        np.testing.assert_array_equal(back * 3, dense)
    assert len(orders[0]) == cells.number == np.count_nonzero(dense)
    assert orders[0] != orders[1]
    assert cells.largest_row == np.count_nonzero(dense, axis=1).max()
    cells.remove()
    assert not list(tmp_path.iterdir())


def test_tokens_of_one_topic_are_near_and_topics_apart(topical_corpus, counted, tmp_path):
    result = glove_vectors(counted(topical_corpus, 15), dim=4, iterations=60, work_folder=tmp_path / "work")
    assert result.vectors.shape == (24, 4)
    assert result.vectors.dtype == np.float32
    assert result.known.tolist() == [False, False] + [True] * 20 + [False, False]
    assert not list((tmp_path / "work").iterdir())
    unit = result.vectors[2:22] / np.linalg.norm(result.vectors[2:22], axis=1, keepdims=True)
    similar = unit @ unit.T
    assert similar[:10, :10].mean() > similar[:10, 10:].mean() + 0.3


def test_the_same_seed_gives_the_same_vectors(topical_corpus, counted, tmp_path):
    options = {"dim": 6, "iterations": 3, "work_folder": tmp_path / "work"}
    first, second = (glove_vectors(counted(topical_corpus, 15), seed=9, **options).vectors for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, glove_vectors(counted(topical_corpus, 15), seed=8, **options).vectors)


def test_a_corpus_without_frequent_neighbours_is_an_error(make_corpus, counted, tmp_path):
    with pytest.raises(DataError, match="no token occurs 5 times"):
        glove_vectors(
            counted(make_corpus([[0, 2, 3, 1]], vocabulary_size=4, special_ids=(0, 1))), work_folder=tmp_path / "work"
        )
    with pytest.raises(DataError, match="no two frequent tokens are neighbours"):
        glove_vectors(counted(make_corpus([[2]] * 9, vocabulary_size=4)), work_folder=tmp_path / "work")


def test_a_training_that_diverges_says_so(topical_corpus, counted, tmp_path):
    with pytest.raises(DataError, match=r"diverged in pass \d+.*embedding\.glove\.learning_rate"):
        glove_vectors(
            counted(topical_corpus, 15), dim=4, iterations=40, learning_rate=1e30, work_folder=tmp_path / "work"
        )
    assert not list((tmp_path / "work").iterdir())
