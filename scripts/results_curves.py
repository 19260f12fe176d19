"""A picture of a file in docs/results: bits per byte over text read and over seconds of training, a line per job.

    python scripts/results_curves.py docs/results/recovery.json

writes `docs/results/recovery_curves.svg`: the first data set, both axes logarithmic. Beside a job's line there is a
dashed one of the same colour: the source model trained as long, where the job was compared with it.
Of jobs that seeds alone tell apart it shows the first. Seconds count only of jobs that had the GPU for themselves:
those that were collected with `--alone`.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from results_page import Record
from results_plot import text

from revocab.runtime.files import write_text

COLOURS = ("#12365f", "#b3541e", "#2f8f5b", "#7d4fa3", "#b02a5b", "#6b7280")  # as many jobs as a picture may have
AXES = {"bytes": ("MB of text", 1e6), "seconds": ("seconds of training on one GPU", 1.0)}
WIDTH, HEIGHT, LEFT, GAP, TOP, BOTTOM = 920, 400, 50, 40, 80, 44  # pixels
LEGEND = (290, 20, 3)  # width and height of a name, and how many stand side by side
TICKS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1, 1.2, 1.4, 1.6, 2, 2.5, 3, 4)  # bits per byte
DECADES = tuple(factor * 10**power for power in range(5) for factor in (1, 2, 5))
Place = Callable[[float], float]


def draw(records: list[Record]) -> str:
    """The picture as SVG."""
    firsts: dict[str, Record] = {}
    for record in records:
        firsts.setdefault(name_of(record), record)
    records = list(firsts.values())
    if len(records) > len(COLOURS):
        sys.exit(f"{len(records)} jobs are too many for one picture: at most {len(COLOURS)}")
    curves = [next(iter(record["learning_curves"].values())) for record in records]
    values = [point["bpb"] for each in curves for points in lines_of(each).values() for point in points]
    high = placing([*values, curves[0]["source"]], HEIGHT - BOTTOM, TOP)
    parts = [*legend(records, curves), text(LEFT, HEIGHT - 8, "bits per byte, lower is better", colour="#5a6472")]
    alone = [index for index, record in enumerate(records) if record.get("alone")]
    panels = {"bytes": range(len(records)), **({"seconds": alone} if alone else {})}
    width = (WIDTH - LEFT - GAP * (len(panels) - 1) - 20) / len(panels)
    for number, (axis, shown) in enumerate(panels.items()):
        left = LEFT + number * (width + GAP)
        parts += panel(axis, [(COLOURS[index], curves[index]) for index in shown], left, width, high)
    style = 'font-family="system-ui, sans-serif" font-size="13" fill="#1d2530"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" {style} role="img">'
    title = "<title>Bits per byte over text and over seconds, a line per job</title>"
    return "\n".join([head, title, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>\n"])


def lines_of(curves: Record) -> dict[str, list[Record]]:
    """By curve the points that a logarithmic axis can show."""
    return {name: [point for point in curves[name] if point["bytes"] > 0] for name in ("adapted", "source_cpt")}


def placing(values: list[float], low: float, high: float) -> Place:
    """Logarithms of values to pixels between two ends."""
    least, most = math.log(min(values)) - 0.02, math.log(max(values)) + 0.02
    return lambda value: low + (high - low) * (math.log(value) - least) / (most - least)


def name_of(record: Record) -> str:
    """Steps of the stages and the rates that differ between recoveries; of stage 1 where it is the only one."""
    labels, stages = record["labels"], [stage for stage in ("stage1", "stage2") if stage in record]
    steps = " + ".join(str(record[stage]["steps"]) for stage in stages)
    tables = f", tables {labels['vocab.lr_tables']:g}" if labels.get("vocab.lr_tables") else ""
    return f"{steps} steps at {labels[f'vocab.lr_{stages[-1]}']:g}{tables}"


def legend(records: list[Record], curves: list[Record]) -> Iterator[str]:
    width, height, columns = LEGEND
    for number, (record, colour) in enumerate(zip(records, COLOURS[: len(records)], strict=True)):
        row, column = divmod(number, columns)
        x, y = LEFT + column * width, 18 + row * height
        yield f'<path d="M{x} {y}h18" stroke="{colour}" stroke-width="2.5"/>{text(x + 24, y + 4.5, name_of(record))}'
    if any(each["source_cpt"] for each in curves):
        y = 18 + (len(records) + columns - 1) // columns * height
        yield f'<path d="M{LEFT} {y}h18" stroke="#1d2530" stroke-width="2" stroke-dasharray="5 4"/>'
        yield text(LEFT + 24, y + 4.5, "dashed: the source model, trained as long with its own tokenizer")


def panel(axis: str, drawn: list[tuple[str, Record]], left: float, width: float, high: Place) -> Iterator[str]:
    title, unit = AXES[axis]
    values = [point[axis] / unit for _, each in drawn for points in lines_of(each).values() for point in points]
    if not values:
        return
    wide = placing(values, left, left + width)
    bottom = HEIGHT - BOTTOM
    for tick in DECADES:
        if min(values) <= tick <= max(values):
            yield f'<path d="M{wide(tick):.1f} {TOP}V{bottom}" stroke="#e6e9ee"/>'
            yield text(wide(tick), bottom + 18, f"{tick:g}", anchor="middle", colour="#5a6472")
    for tick in TICKS:
        if TOP <= high(tick) <= bottom:
            yield f'<path d="M{left} {high(tick):.1f}H{left + width:.1f}" stroke="#e6e9ee"/>'
            yield text(left - 6, high(tick) + 4.5, f"{tick:g}", anchor="end", colour="#5a6472")
    yield text(left + width, HEIGHT - 8, title, anchor="end", colour="#5a6472")
    source = drawn[0][1]["source"]
    yield f'<path d="M{left} {high(source):.1f}h{width:.1f}" stroke="#8a929e" stroke-dasharray="2 3"/>'
    yield text(left + width, high(source) - 5, f"source model {source:.3f}", anchor="end", colour="#5a6472")
    for colour, each in drawn:
        for name, points in lines_of(each).items():
            places = " ".join(f"{wide(point[axis] / unit):.1f},{high(point['bpb']):.1f}" for point in points)
            dashes = ' stroke-dasharray="5 4"' if name == "source_cpt" else ""
            yield f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    write_text(file.with_name(f"{file.stem}_curves.svg"), draw(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
