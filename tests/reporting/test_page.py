import json
import re
import shutil
import subprocess
import time

import pytest

from revocab.reporting import collect, write_sweep
from revocab.reporting.alignments import alignment_panel
from revocab.reporting.page import page_data, to_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
]


def data_of(html):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_the_page_holds_the_numbers_of_the_jobs(sweep):
    data = data_of(to_html(collect(sweep), "table"))
    assert [job["name"] for job in data["jobs"]] == ["a", "b", "c", "d"]
    assert data["jobs"][1]["bpb"]["bio.heldout"]["final"] == 0.792
    assert data["best"] == {"bio.heldout": 1}
    assert data["jobs"][3]["curves"]["stage1"]["step"][-1] == 60
    assert data["jobs"][0]["command"] == "python train.py preset=paper"


def test_offline_runs_come_with_the_command_that_sends_them(sweep):
    assert data_of(to_html(collect(sweep), "table"))["upload"] is None
    (sweep / "a" / "wandb" / "offline-run-1").mkdir(parents=True)
    assert data_of(to_html(collect(sweep), "table"))["upload"] == f"wandb sync --yes {sweep}/*/wandb"


def test_tokens_of_any_kind_cannot_end_the_script(sweep):
    html = to_html(collect(sweep), "<b>&")
    assert html.count("</script>") == 2
    assert "<title>&lt;b&gt;&amp; · revocab</title>" in html
    assert "</script>" in [row["token"] for row in data_of(html)["alignments"][0]["tables"][0]["rows"]]


def test_nothing_is_fetched(sweep):
    html = to_html(collect(sweep), "table")
    markup = html.replace("http://www.w3.org/2000/svg", "")  # the name of a namespace
    assert not re.search(r"https?://|@import|url\(|<link[^>]+href=\"(?!data:)", markup)
    assert "{{" not in html


def test_jobs_that_share_an_alignment_share_its_panel(tmp_path, make_job):
    for name, method in (("a", "mixed"), ("b", "mixed"), ("c", "exact")):
        make_job(tmp_path / name, alignment=method)
        if method == "exact":
            (tmp_path / name / "alignment_report.json").write_text('{"coverage": 0.5}')
    data = page_data(collect(tmp_path), "t")
    assert [job["alignment"] for job in data["jobs"]] == [0, 0, 1]


def test_alignment_panel_takes_what_is_there():
    report = {
        "coverage": 0.9,
        "pivots": None,
        "method": "mixed",
        "origins": {"exact": 3, "unseen": 0},
        "heldout": {"procrustes": {"top1": 0.8}},
        "similarity_histogram": {"edges": [0, 0.5, 1], "counts": [1, 2]},
        "hubs": [{"token": "a"}] * 40,
        "weakest_frequent": [],
        "bins": [1, 2],
    }
    panel = alignment_panel(report)
    assert panel["counts"] == {"coverage": 0.9}
    assert panel["details"] == {"heldout procrustes top1": 0.8}
    assert panel["origins"] == {"exact": 3}
    assert panel["histogram"] == {"edges": [0, 0.5, 1], "counts": [1, 2]}
    assert [(table["title"], len(table["rows"])) for table in panel["tables"]] == [("Hubs", 30)]
    assert alignment_panel({}) is None
    assert alignment_panel({"h": {"edges": [0, 1], "counts": [None]}})["histogram"] is None


def test_fifty_jobs_take_at_most_five_seconds(tmp_path, make_job):
    folder = make_job(tmp_path / "job0", steps=1000)
    for number in range(1, 50):
        shutil.copytree(folder, tmp_path / f"job{number}")
    began = time.monotonic()
    write_sweep(tmp_path)
    assert time.monotonic() - began < 5


def browse(page, script, tmp_path):
    """The text that `script` leaves in an element, and what the browser's console said."""
    copy = tmp_path / "page.html"
    probe = (
        f"<pre id=probe></pre><script>document.getElementById('probe').textContent = JSON.stringify({script});</script>"
    )
    copy.write_text(page.read_text().replace("</body>", f"{probe}</body>"))
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), done.stderr


SORT = """(() => {
  const heads = [...document.querySelectorAll("#comparison thead tr:last-child th")];
  const rows = () => [...document.querySelectorAll("#comparison tbody tr")].map((row) => row.dataset.job);
  const final = heads.find((head) => head.textContent === "final");
  const result = [rows()];
  final.querySelector("button").click(); result.push(rows(), final.getAttribute("aria-sort"));
  final.querySelector("button").click(); result.push(rows(), final.getAttribute("aria-sort"));
  return [...result, [...document.querySelectorAll("td.best")].map((cell) => cell.textContent)];
})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser")
def test_a_browser_sorts_the_table_and_has_nothing_to_complain(sweep, tmp_path):
    report = write_sweep(sweep).report
    (before, up, ascending, down, descending, best), console = browse(report, SORT, tmp_path)
    assert before == ["a", "b", "c", "d"]
    assert (up, ascending) == (["b", "a", "c", "d"], "ascending")
    assert (down, descending) == (["a", "b", "c", "d"], "descending")  # jobs without a score stay below
    assert best == ["0.7920−10.0 %"]
    assert "CONSOLE" not in console


ANSWERS = """[...document.querySelectorAll("#table-answers tbody tr:last-child td")].map((cell) => cell.textContent)"""
HEADINGS = """[...document.querySelectorAll("#table-answers h3")].map((cell) => cell.textContent)"""
CELLS = """[...document.querySelectorAll("#comparison tbody tr:last-child td")].map((cell) => cell.textContent)"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser")
def test_a_browser_shows_answers_with_their_intervals(tmp_path, make_job):
    for name, quality in (("a", 1.0), ("b", 0.9)):
        make_job(tmp_path / "sweep" / name, tasks=("arc_easy", "medqa"), quality=quality)
    report = write_sweep(tmp_path / "sweep").report
    (answers, headings, cells), console = browse(report, f"[{ANSWERS}, {HEADINGS}, {CELLS}]", tmp_path)
    row = ["b", "46.0 % 39.0 % to 52.0 %", "51.0 % 44.0 % to 57.0 %", "+5.0 -2.0 to +8.1", "200"]
    assert answers == [*row, *row]
    assert headings == ["Right answers: medqa", "Right answers: arc_easy (general)"]
    assert "-0.2080-0.3000 to +0.0100" in cells
    assert "CONSOLE" not in console


PANELS = """(() => {
  document.getElementById("logY").click();
  document.getElementById("logX").click();
  const select = document.querySelector("#curves-body select");
  select.value = "lr"; select.dispatchEvent(new Event("change"));
  document.querySelector("#curves-body .legend button").click();
  return {
    curves: document.querySelectorAll("#curve-plot path").length,
    bars: document.querySelectorAll("#stages-body rect").length,
    empty: [...document.querySelectorAll("[id$=-body]")].filter((body) => !body.children.length).map((body) => body.id),
    panels: document.querySelectorAll("[id$=-body]").length,
    failed: document.querySelectorAll("#checks .fail").length,
  };
})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser")
def test_a_browser_draws_every_panel(sweep, tmp_path):
    result, console = browse(write_sweep(sweep).report, PANELS, tmp_path)
    assert result == {"curves": 3, "bars": 2 * 5, "empty": [], "panels": 10, "failed": 2}
    assert "CONSOLE" not in console


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser")
def test_a_browser_copes_with_jobs_that_left_next_to_nothing(tmp_path):
    (tmp_path / "sweep" / "a").mkdir(parents=True)
    (tmp_path / "sweep" / "a" / "status.json").write_text('{"state": "failed", "error": "<boom>"}')
    (tmp_path / "sweep" / "b").mkdir()
    (tmp_path / "sweep" / "b" / "summary.json").write_text('{"bpb": {"x": {}}, "stage1": {"steps": 3}}')
    script = "document.getElementById('table-troubles').textContent"
    text, console = browse(write_sweep(tmp_path / "sweep").report, script, tmp_path)
    assert "<boom>" in text
    assert "CONSOLE" not in console


def add_text(folder, bpb):
    """Curves, kinds and sentences of one job, as training leaves them."""
    curve = [
        {"stage": stage, "step": step, "bytes": size, "seconds": size / 9e4, "bpb": value}
        for stage, step, size, value in (("init", 0, 0, 1.4), ("stage1", 9, 2_000_000, 1.1), ("stage2", 9, 4e6, bpb))
    ]
    met = {"steps_to_source": 18, "bytes_to_source": 4_000_000, "seconds_to_source": 44.4}
    curves = {"source": 1.0, "adapted": curve, "source_cpt": curve[:2], **(met if bpb < 1 else {})}
    kind = {"documents": 4, "bytes_per_token": {"source": 3, "target": 4}, "bpb": {"source": 1, "target": bpb}}
    summary = json.loads((folder / "summary.json").read_text())
    summary |= {"learning_curves": {"bio.heldout": curves}, "kinds": {"bio.heldout": {"<GO>": kind, "MONDO": kind}}}
    (folder / "summary.json").write_text(json.dumps(summary))
    tokens = [("The", 3, True, 1.5), (" <b>", 4, True, 30.0), ("CE", 1, False, 2.0), ("\n", 1, True, 0.0)]
    tokens = [dict(zip(("text", "bytes", "whole", "bits"), token, strict=True)) for token in tokens]
    sentence = {"dataset": "bio.heldout", "text": "The <b>…", "tokens": tokens}
    segments = {"source": [sentence], "adapted": [{**sentence, "tokens": tokens[: 2 + (bpb < 1)]}]}
    (folder / "segments.json").write_text(json.dumps(segments))


TEXT = """(() => {
  const count = (query) => document.querySelectorAll(query).length;
  const texts = (query, within = document) => [...within.querySelectorAll(query)].map((one) => one.textContent);
  const shown = { lines: count("#learning-plot path"), points: count("#learning-plot circle") };
  shown.table = texts("#learning-plot table")[0];
  document.querySelectorAll("#learning-body .legend button")[1].click();
  shown.linesOfOne = count("#learning-plot path");
  const [, axis] = document.querySelectorAll("#learning-body select");
  axis.value = "seconds"; axis.dispatchEvent(new Event("change"));
  shown.axis = texts("#learning-plot text").includes("seconds of training");
  shown.bars = count("#kinds-plot rect");
  const tokens = () => [...document.querySelectorAll("#segments-text .tokens")].map((line) => texts(".token", line));
  shown.first = tokens();
  const choice = document.getElementById("segments-choice");
  choice.value = "1"; choice.dispatchEvent(new Event("change"));
  shown.second = tokens();
  const [source] = document.querySelectorAll("#segments-text .tokens");
  shown.colours = [...source.children].map((token) => token.style.background);
  source.children[2].dispatchEvent(new MouseEvent("mousemove", { clientX: 9, clientY: 9 }));
  shown.tip = document.getElementById("tip").textContent;
  return shown;
})()"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium browser")
def test_a_browser_shows_text_and_time_kinds_and_sentences(sweep, tmp_path):
    add_text(sweep / "a", bpb=1.05)
    add_text(sweep / "b", bpb=0.9)
    shown, console = browse(write_sweep(sweep).report, TEXT, tmp_path)
    assert "CONSOLE" not in console
    assert shown["lines"] == 3  # two jobs, and the baseline that both were compared with, once
    assert (shown["points"], shown["linesOfOne"], shown["axis"]) == (3 + 3 + 2, 2, True)
    assert re.findall(r"not reached|184 MB44 s", shown["table"]) == ["not reached", "184 MB44 s"]  # 18 steps
    assert shown["bars"] == 3 * 2  # the data set and its two kinds, for two tokenizers
    source = ["The", " <b>", "CE", "⏎"]
    assert shown["first"] == [source, source[:2]]
    assert shown["second"] == [source, source[:3]]
    assert shown["colours"] == [f"rgba(var(--heat), {alpha})" for alpha in ("0.068", "0.820", "0.273", "0.000")]
    assert shown["tip"] == "part of a character: byte CE\n2.00 bits, 1 byte: 2.00 bits per byte"
