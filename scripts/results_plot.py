"""A picture of a file in docs/results: bits per byte by stage, the best job at the top, of jobs that seeds alone tell
apart their mean.

    python scripts/results_plot.py docs/results/embedded_alignments.json

writes `docs/results/embedded_alignments.svg`: the first data set, on a logarithmic axis.
"""

import argparse
import json
import math
import statistics
import sys
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from results_page import Record, row_name

from revocab.runtime.files import write_text

# Names of rows: the option that the sweep is about; else the method, and of its variants what is unusual about them.
ABOUT = {"one_change_at_a_time": ["change"]}
KEYS = ["alignment.method", "alignment.subtoken_weights=uniform", "alignment.top_k=10"]
KEYS += ["alignment.similarity_threshold=None", "alignment.boundary_share=0", "alignment.frequency_shift=0"]
STAGES = {  # light to dark in the order of time
    "init": ("init", "#b8bec8"),
    "probe": ("probe", "#8db4e2"),
    "stage1": ("after stage 1", "#3f7fc4"),
    "final": ("after stage 2", "#12365f"),
}
WIDTH, NAMES, LINE, TOP, RADIUS = 920, 330, 24, 64, 6  # pixels; NAMES: width of the names on the left
TICKS = (0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16)  # bits per byte


def draw(records: list[Record]) -> str:
    """The picture as SVG; jobs without a score of the last stage are left out."""
    rows: dict[str, list[dict[str, float]]] = {}
    for record in filter(finished, records):
        rows.setdefault(row_name(record, ABOUT.get(record["sweep"], KEYS)), []).append(scores_of(record))
    scores = {name: means(jobs) for name, jobs in rows.items()}
    scores = dict(sorted(scores.items(), key=lambda item: item[1].get("final", item[1]["stage1"])))
    source = next(iter(scores.values()))["source"]
    values = [each[stage] for each in scores.values() for stage in STAGES if stage in each]
    low, high = math.log(min(source, *values) * 0.97), math.log(max(values) * 1.03)

    def place(value: float) -> float:
        return NAMES + (WIDTH - NAMES - 20) * (math.log(value) - low) / (high - low)

    bottom = TOP + LINE * len(scores)
    shown = [stage for stage in STAGES if any(stage in each for each in scores.values())]
    parts = [*legend(shown), *axis(place, bottom, math.exp(low), math.exp(high))]
    parts += reference(place(source), bottom, source)
    for number, (name, each) in enumerate(scores.items()):
        parts += line(name, each, TOP + LINE * (number + 0.5), place)
    size = f'width="{WIDTH}" height="{bottom + 34}"'
    style = 'font-family="system-ui, sans-serif" font-size="13" fill="#1d2530"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style} role="img">',
            "<title>Bits per byte by stage, a line per job</title>",
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            "</svg>\n",
        ]
    )


def finished(row: Record) -> bool:
    return all("final" in each for each in row["bpb"].values())


def means(jobs: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.fmean(job[stage] for job in jobs) for stage in jobs[0]}


def scores_of(row: Record) -> dict[str, float]:
    """By stage, of the first data set; a job without stage 2 ends with stage 1."""
    scores = next(iter(row["bpb"].values()))
    return {stage: value for stage, value in scores.items() if stage != "final" or "stage2" in row}


def legend(stages: list[str]) -> list[str]:
    parts = []
    for number, (title, colour) in enumerate(STAGES[stage] for stage in stages):
        x = NAMES + 130 * number
        parts += [dot(x, 20, colour, title), text(x + 12, 24.5, title)]
    return parts


def axis(place, bottom: float, low: float, high: float) -> list[str]:
    parts = [text(20, bottom + 20, "bits per byte, lower is better", colour="#5a6472")]
    for tick in (tick for tick in TICKS if low <= tick <= high):
        x = place(tick)
        parts.append(f'<path d="M{x:.1f} {TOP - 8}V{bottom}" stroke="#e6e9ee"/>')
        parts.append(text(x, bottom + 20, f"{tick:g}", anchor="middle", colour="#5a6472"))
    return parts


def reference(x: float, bottom: float, value: float) -> list[str]:
    """What the untouched source model scores."""
    return [
        f'<path d="M{x:.1f} {TOP - 8}V{bottom}" stroke="#b3541e" stroke-dasharray="4 3"/>',
        text(x - 4, TOP - 14, f"source model {value:.3f}", colour="#b3541e"),
    ]


def line(name: str, scores: dict[str, float], y: float, place) -> list[str]:
    found = {stage: scores[stage] for stage in STAGES if stage in scores}
    ends = [place(value) for value in found.values()]
    parts = [text(NAMES - 12, y + 4.5, name, anchor="end")]
    parts.append(f'<path d="M{min(ends):.1f} {y}H{max(ends):.1f}" stroke="#cfd5dd" stroke-width="2"/>')
    for stage, value in found.items():
        title, colour = STAGES[stage]
        parts.append(dot(place(value), y, colour, f"{name}, {title}: {value:.4f}"))
    return parts


def dot(x: float, y: float, colour: str, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y}" r="{RADIUS}" fill="{colour}"><title>{escape(title)}</title></circle>'


def text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#1d2530") -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    write_text(file.with_suffix(".svg"), draw(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
