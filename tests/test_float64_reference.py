"""A small job against float64 arithmetic written down anew: tables, bits per byte, and two steps of stage 1.

Nothing of revocab is used here but the command; the model is Llama's formulas, the optimiser AdamW's.
"""

import io
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zstandard
from safetensors.torch import load_file
from scipy import sparse
from tokenizers import Tokenizer

import revocab
from revocab import cli, pipeline

ASSETS = Path(revocab.__file__).parent / "assets"
DOCUMENTS, LENGTH, BATCH, ACCUMULATION, STEPS = 60, 32, 2, 2, 2
PEAK, DECAY, CLIP = 6.4e-4, 0.5, 0.7  # decay and clipping strong enough to be missed, were they left out
UNKNOWN, BOS, EOS = 0, 1, 2  # of the target tokenizer
SOURCE_MARK = 0  # of the source tokenizer, bos and eos in one
SETTINGS = [
    "alignment=subtoken", "corpus=jsonl", "corpus.inputs=[train.jsonl]", "corpus.heldout_fraction=0", "logger=none",
    "evaluation.datasets=[held.jsonl]", "scale.step_factor=0.0008", f"vocab.max_seq_length={LENGTH}",
    f"vocab.batch_size={BATCH}", f"vocab.gradient_accumulation={ACCUMULATION}", f"vocab.lr_stage1={PEAK}",
    f"vocab.weight_decay={DECAY}", f"vocab.gradient_clip={CLIP}", "vocab.bf16=false", "vocab.shuffle=false",
    "vocab.probe_steps=0", "hydra.run.dir=job", "paths.cache_dir=cache",
]  # fmt: skip


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Folder of a finished job of `train.py`, with the texts that it read beside it."""
    folder = tmp_path_factory.mktemp("reference")
    with zstandard.open(ASSETS / "sample.jsonl.zst", "rt", encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(DOCUMENTS + 1)]
    write(folder / "held.jsonl", [texts.pop()[:400] + " β-carotene 12 µg"])
    write(folder / "train.jsonl", texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *SETTINGS])
        patch.setattr(sys, "stderr", io.StringIO())
        with pytest.raises(SystemExit) as ended:
            cli.run(pipeline.train)
    assert ended.value.code == 0
    return folder / "job"


def write(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def texts_of(path):
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def tokenizer_of(name):
    return Tokenizer.from_file(str(ASSETS / name / "tokenizer.json"))


@pytest.fixture(scope="module")
def source():
    """The embedded model's weights in float64; its one table is tied."""
    return {name: tensor.double() for name, tensor in load_file(ASSETS / "source_model" / "model.safetensors").items()}


@pytest.fixture(scope="module")
def new_table(source):
    """(T, D): shared tokens' rows as they were, means of the rows of a token's pieces, for the rest the mean of all."""
    table_SD, model = source["model.embed_tokens.weight"], tokenizer_of("source_model").model
    alphabet = byte_alphabet()
    names = {index: name for name, index in tokenizer_of("target_tokenizer").get_vocab().items()}
    mean_D = table_SD[1:].mean(0)  # SOURCE_MARK is no text
    rows = []
    for index in range(len(names)):
        pieces = (
            [] if index == UNKNOWN else [SOURCE_MARK] if index in (BOS, EOS) else cut(names[index], model, alphabet)
        )
        rows.append(table_SD[pieces].mean(0) if pieces else mean_D)
    return torch.stack(rows)


def cut(name, model, alphabet):
    """Source tokens that spell a target token; none if all of them are parts of characters."""
    surface = bytes([int(name[3:5], 16)]) if name.startswith("<0x") else name.replace("▁", " ").encode()
    spelled = "".join(alphabet[byte] for byte in surface)
    if (whole := model.token_to_id(spelled)) is not None:
        return [whole]
    pieces = model.tokenize(spelled)
    says_nothing = alphabet[0x80:] + ([alphabet[0x20] * n for n in range(1, 40)] if surface.strip(b" ") else [])
    telling = any(piece.value not in says_nothing for piece in pieces)
    return [piece.id for piece in pieces] if telling else []


def byte_alphabet():
    """GPT-2's printable character for each byte: itself where it is printable, else the next one from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def logits_of(table_VD, weights, ids_BL, *, heads=6, groups=3, width=32, layers=4, theta=1e4, epsilon=1e-6):
    """Llama (Touvron et al. 2023): RMS norms, rotary positions, grouped attention, SwiGLU; tied tables."""

    def norm(x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt() * weights[name]

    def linear(x, layer, name):
        return x @ weights[f"model.layers.{layer}.{name}.weight"].T

    def split(x, parts):  # (B, L, parts * width) -> (B, parts, L, width)
        return x.unflatten(-1, (parts, width)).transpose(1, 2)

    length = ids_BL.shape[1]
    angles = torch.arange(length).double()[:, None] / theta ** (torch.arange(0, width, 2).double() / width)
    turn = torch.polar(torch.ones_like(angles), angles)

    def rotate(x):  # pairs are (j, j + width / 2), as Hugging Face stores them
        turned = torch.complex(x[..., : width // 2], x[..., width // 2 :]) * turn
        return torch.cat([turned.real, turned.imag], -1)

    x_BLD = table_VD[ids_BL]
    future = torch.ones(length, length).triu(1).bool()
    for layer in range(layers):
        h = norm(x_BLD, f"model.layers.{layer}.input_layernorm.weight")
        q = rotate(split(linear(h, layer, "self_attn.q_proj"), heads))
        k = rotate(split(linear(h, layer, "self_attn.k_proj"), groups)).repeat_interleave(heads // groups, 1)
        v = split(linear(h, layer, "self_attn.v_proj"), groups).repeat_interleave(heads // groups, 1)
        attention = (q @ k.transpose(-1, -2) / math.sqrt(width)).masked_fill(future, -math.inf).softmax(-1)
        x_BLD = x_BLD + linear((attention @ v).transpose(1, 2).flatten(2), layer, "self_attn.o_proj")
        h = norm(x_BLD, f"model.layers.{layer}.post_attention_layernorm.weight")
        gate = linear(h, layer, "mlp.gate_proj")
        x_BLD = x_BLD + linear(gate * gate.sigmoid() * linear(h, layer, "mlp.up_proj"), layer, "mlp.down_proj")
    return norm(x_BLD, "model.norm.weight") @ table_VD.T


def mean_nats(table_VD, weights, ids_BL):
    """Mean negative log-likelihood of every token but the first of each row."""
    scores_BLV = logits_of(table_VD, weights, ids_BL)[:, :-1].log_softmax(-1)
    return -scores_BLV.gather(-1, ids_BL[:, 1:, None]).mean()


def bits_per_byte(table_VD, weights, tokenizer, mark, text):
    ids = [mark, *tokenizer.encode(text, add_special_tokens=False).ids]
    with torch.no_grad():
        nats = mean_nats(table_VD, weights, torch.tensor([ids])) * (len(ids) - 1)
    return float(nats) / math.log(2) / len(text.encode())


@pytest.fixture(scope="module")
def stage(job, source, new_table):
    """The table after each step of stage 1, and the step's loss, gradient norm and learning rate."""
    tokenizer = tokenizer_of("target_tokenizer")
    stream = []
    for text in texts_of(job.parent / "train.jsonl"):
        stream += [BOS, *tokenizer.encode(text, add_special_tokens=False).ids, EOS]
    sequences = torch.tensor(stream[: STEPS * ACCUMULATION * BATCH * LENGTH]).view(STEPS, ACCUMULATION, BATCH, LENGTH)
    table = new_table.clone().requires_grad_(True)
    first, second = torch.zeros_like(new_table), torch.zeros_like(new_table)
    steps = []
    for number, (micro_batches, share) in enumerate(zip(sequences, (1 / 2, 1.0), strict=True), start=1):
        loss = sum(mean_nats(table, source, ids_BL) for ids_BL in micro_batches) / ACCUMULATION
        (gradient,) = torch.autograd.grad(loss, table)
        norm, lr = float(gradient.norm()), share * PEAK
        gradient = gradient * min(1.0, CLIP / norm)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        with torch.no_grad():
            update = first / (1 - 0.9**number) / ((second / (1 - 0.999**number)).sqrt() + 1e-8)
            table = (table - lr * DECAY * table - lr * update).requires_grad_(True)
        steps.append({"table": table.detach(), "loss": loss.item(), "grad_norm": norm, "lr": lr})
    return steps


def test_the_new_table_scores_as_the_means_of_its_pieces_rows(job, source, new_table):
    """The job keeps no table before training, but the bits that it gives show each row that the document uses."""
    (text,) = texts_of(job.parent / "held.jsonl")
    bpb = json.loads((job / "summary.json").read_text())["bpb"]["held"]
    table = source["model.embed_tokens.weight"]
    before = bits_per_byte(table, source, tokenizer_of("source_model"), SOURCE_MARK, text)
    after = bits_per_byte(new_table, source, tokenizer_of("target_tokenizer"), BOS, text)
    assert bpb["source"] == pytest.approx(before, rel=1e-5)
    assert bpb["init"] == pytest.approx(after, rel=1e-5)


def test_weights_times_tables_is_that_table(job, source, new_table):
    (folder,) = {path.parent for path in (job.parent / "cache" / "alignment").rglob("weights.npz")}
    rows, table_SD = np.load(folder / "rows.npz"), source["model.embed_tokens.weight"].numpy()
    made = sparse.load_npz(folder / "weights.npz").astype(np.float64) @ table_SD
    made += np.outer(rows["background_share"], rows["background"].astype(np.float64) @ table_SD)
    np.testing.assert_allclose(made, new_table.numpy(), rtol=0, atol=1e-6)


def test_loss_gradient_norm_and_learning_rate_of_every_step(job, stage):
    lines = [json.loads(line) for line in (job / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if line["stage"] == "stage1"]
    assert len(logged) == len(stage) == STEPS
    for line, step in zip(logged, stage, strict=True):
        for name in ("loss", "grad_norm", "lr"):
            assert line[name] == pytest.approx(step[name], rel=1e-4), name
    assert stage[1]["grad_norm"] > CLIP  # so clipping counted


def test_the_table_after_stage_1(job, source, new_table, stage):
    tensors = load_file(job / "checkpoints" / "stage1" / "trained.safetensors")
    assert list(tensors) == ["model.embed_tokens.weight"]
    trained, expected = tensors["model.embed_tokens.weight"].double(), stage[-1]["table"]
    update = expected - new_table
    # where a gradient is as small as float32's rounding, Adam makes a step of full size of it
    assert float((trained - expected).norm() / update.norm()) < 1e-3
    assert float((trained - expected).abs().max()) < 1.5 * PEAK
    (text,) = texts_of(job.parent / "held.jsonl")
    bpb = json.loads((job / "summary.json").read_text())["bpb"]["held"]
    by_hand = bits_per_byte(expected, source, tokenizer_of("target_tokenizer"), BOS, text)
    assert bpb["stage1"] == pytest.approx(by_hand, rel=1e-4)
