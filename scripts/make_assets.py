"""Make the embedded default: sample corpus, two tokenizers, and a small but really trained source model.

    python scripts/make_assets.py corpus     --biomedical bio.jsonl --general general.jsonl --work build/assets
    python scripts/make_assets.py tokenizers --work build/assets
    python scripts/make_assets.py train      --work build/assets --minutes 5          # a GPU, or hours on a CPU
    python scripts/make_assets.py score      --work build/assets --general-heldout general.heldout.jsonl

Input lines are `{"text": ..., "source": ...}`. Only sources whose licence lets their text, and a model trained on it,
be passed on are used: BIOMEDICAL_SOURCES (CC-BY-4.0) and GENERAL_SOURCES (public domain and permissive licences).

The source model is a general one that has seen some biomedical text; the sample corpus is biomedical text that it has
not seen; the source tokenizer is byte-level BPE over general text, the target tokenizer SentencePiece-style BPE over
biomedical text. So a change of vocabulary saves tokens, costs BPB at first, and has something to learn.
"""

import argparse
import json
import lzma
import math
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ASSETS = Path(__file__).parents[1] / "src" / "revocab" / "assets"
BIOMEDICAL_SOURCES = {  # suffix of `source`: bytes of it in the sample
    "CHEBI": 1_700_000,
    "go.db": 1_700_000,
    "MONDO": 1_700_000,
    "uniprot": 900_000,
}
GENERAL_SOURCES = (
    "wordnet-base", "r-cran-janeaustenr", "python3.11-doc", "postgresql-doc-15", "python-django-doc",
    "python-sklearn-doc", "python-scipy-doc", "rust-doc", "apache2-doc",
)  # fmt: skip
MODEL_BIOMEDICAL_BYTES = 4_000_000  # of biomedical text in the model's own training, none of it in the sample
SOURCE_VOCABULARY, TARGET_VOCABULARY = 4096, 6144
SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
}
LENGTH = 512
SEED = 20261124


def read(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            yield row["source"], row["text"]


def make_corpus(biomedical: Path, general: Path, work: Path) -> None:
    """Write the sample (for the package) and the source model's own training text (for `train`)."""
    work.mkdir(parents=True, exist_ok=True)
    rows = list(read(biomedical))
    random.Random(SEED).shuffle(rows)
    taken: Counter[str] = Counter()
    sample, for_model, model_bytes = [], [], 0
    for source, text in rows:
        name = next((name for name in BIOMEDICAL_SOURCES if source.endswith(name)), None)
        if name is None:
            continue
        size = len(text.encode())
        if taken[name] + size <= BIOMEDICAL_SOURCES[name]:
            taken[name] += size
            sample.append({"text": text, "source": name})
        elif model_bytes + size <= MODEL_BIOMEDICAL_BYTES:
            model_bytes += size
            for_model.append(text)
    general_texts = [text for source, text in read(general) if source in GENERAL_SOURCES]
    write_lines(work / "sample.jsonl", sample)
    write_lines(work / "general.jsonl", [{"text": text} for text in general_texts])
    write_lines(work / "model.jsonl", [{"text": text} for text in general_texts + for_model])
    print(f"sample: {len(sample)} documents, {dict(taken)} bytes")
    print(f"source model: {len(general_texts)} general documents, {len(for_model)} biomedical ({model_bytes} bytes)")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def texts(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.open(encoding="utf-8")]


def make_tokenizers(work: Path) -> None:
    byte_level_bpe(texts(work / "general.jsonl")).save_pretrained(work / "source_model")
    sentencepiece_bpe(texts(work / "sample.jsonl")).save_pretrained(work / "target_tokenizer")
    for name in ("source_model", "target_tokenizer"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(work / name)
        document = texts(work / "sample.jsonl")[0]
        ids = tokenizer(document, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == document, f"{name} does not give a document back"
        print(f"{name}: {len(tokenizer)} tokens, {len(document.encode()) / len(ids):.2f} bytes per token")


def byte_level_bpe(corpus: list[str]) -> PreTrainedTokenizerFast:
    """GPT-2's kind: every byte is a letter of the alphabet, a word start is `Ġ`."""
    tokenizer = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SOURCE_VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    mark = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=mark, eos_token=mark)


def sentencepiece_bpe(corpus: list[str]) -> PreTrainedTokenizerFast:
    """Llama's kind: a word start is `▁`, and what has no token falls back to byte pieces `<0x..>`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words = pre_tokenizers.Split(Regex("▁+[^▁]*"), behavior="isolated")  # words for training, as Metaspace cuts them
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Digits(individual_digits=True)])
    marks = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=TARGET_VOCABULARY - len(bytes_), special_tokens=marks, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    layout = json.loads(tokenizer.to_str())
    learned = sorted(layout["model"]["vocab"], key=layout["model"]["vocab"].get)[len(marks) :]
    layout["model"]["vocab"] = {token: id_ for id_, token in enumerate(marks + bytes_ + learned)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(layout)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def train_model(work: Path, minutes: float, batch: int, peak_rate: float) -> None:
    """Train from scratch: AdamW, cosine with 2 % warm-up by time, so that the schedule ends when the time does."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "source_model")
    stream = packed(texts(work / "model.jsonl"), tokenizer).to(device)
    model = new_model(tokenizer).to(device)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak_rate, betas=(0.9, 0.95), fused=device == "cuda")
    generator = torch.Generator().manual_seed(SEED)
    start, step, losses = time.monotonic(), 0, []
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        rate = peak_rate * min(share / 0.02, 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        begin = torch.randint(len(stream) - LENGTH, (batch,), generator=generator).to(device)
        ids = stream[begin[:, None] + torch.arange(LENGTH, device=device)].long()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        step += 1
        if step % 500 == 0:
            mean = torch.stack(losses).mean().item()
            print(f"{share:4.0%} step {step} tokens {step * batch * LENGTH:,} loss {mean:.4f}", flush=True)
            losses = []
    model.to("cpu", torch.float16).save_pretrained(work / "source_model")
    print(f"trained on {device}: {step} steps, {step * batch * LENGTH:,} tokens, {minutes} minutes")


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
        **SHAPE,
    )
    return LlamaForCausalLM(config)


def packed(documents: list[str], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """All documents in a shuffled row, an end mark behind each."""
    random.Random(SEED).shuffle(documents)
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    stream = np.concatenate([np.array([tokenizer.bos_token_id, *e.ids], dtype=np.int32) for e in encoded])
    return torch.from_numpy(stream)


def score(work: Path, general_heldout: Path | None) -> None:
    """Print the model's BPB on held-out text beside what `xz -9` and a token-unigram model need for the same text."""
    from revocab.artifacts import Corpus
    from revocab.corpus import build_corpus
    from revocab.evaluation import score_text

    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "source_model")
    model = LlamaForCausalLM.from_pretrained(work / "source_model", dtype=torch.float32).eval()
    folder = work / "corpus"
    folder.mkdir(exist_ok=True)
    build_corpus(
        folder, [str(work / "sample.jsonl")], text_field="text", size_gb=None, byte_budget=0, deduplicate=True,
        hash_name="sha256", min_line_length=0, heldout_fraction=0.02,
    )  # fmt: skip
    heldout = Corpus.load(folder).heldout
    sets = {"sample held-out": [heldout[i] for i in range(len(heldout))]}
    if general_heldout:
        sets["general held-out"] = [text for source, text in read(general_heldout) if source in GENERAL_SOURCES][:150]
    counts = np.bincount(packed(texts(work / "model.jsonl"), tokenizer).numpy(), minlength=len(tokenizer)) + 1.0
    for name, documents in sets.items():
        scores = score_text(model, tokenizer, documents, max_length=LENGTH, batch_tokens=8192, device="cpu")
        text = "".join(documents).encode()
        ids = np.concatenate([tokenizer(d, add_special_tokens=False).input_ids for d in documents])
        unigram = -np.log2(counts / counts.sum())[ids].sum() / len(text)
        xz = 8 * len(lzma.compress(text, preset=9)) / len(text)
        print(
            f"{name}: {len(documents)} documents, {len(text)} bytes: model {scores.bits_per_byte:.3f}, "
            f"xz -9 {xz:.3f}, token unigrams {unigram:.3f} bits per byte"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["corpus", "tokenizers", "train", "score"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--biomedical", type=Path)
    parser.add_argument("--general", type=Path)
    parser.add_argument("--general-heldout", type=Path)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--peak-rate", type=float, default=3e-3)
    args = parser.parse_args()
    if args.step == "corpus":
        make_corpus(args.biomedical, args.general, args.work)
    elif args.step == "tokenizers":
        make_tokenizers(args.work)
    elif args.step == "train":
        train_model(args.work, args.minutes, args.batch, args.peak_rate)
    else:
        score(args.work, args.general_heldout)


if __name__ == "__main__":
    main()
