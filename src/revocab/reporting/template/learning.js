// Held-out scores over the text read, or over the time of training: adapted models, the baseline, the source model.
const learningChoice = { dataset: null, axis: "bytes", hidden: new Set() };
const LEARNING_AXES = { bytes: "bytes of text read", seconds: "seconds of training" };
const withLearning = JOBS.map((job, index) => ({ job, index })).filter(({ job }) => Object.values(job.learning).some((curves) => curves.adapted.length));
const learningSets = [...new Set(withLearning.flatMap(({ job }) => Object.keys(job.learning)))];
const amount = (value, axis) => (axis === "seconds" ? duration(value) : value >= 1e9 ? +(value / 1e9).toPrecision(3) + " GB" : value >= 1e6 ? +(value / 1e6).toPrecision(3) + " MB" : +(value / 1e3).toPrecision(3) + " kB");

// Lines of the chosen data set; a baseline and a source score that jobs share are drawn once.
function learningLines() {
  const { dataset, hidden } = learningChoice;
  const lines = [], seen = new Set();
  for (const { job, index } of withLearning) {
    const curves = job.learning[dataset];
    if (!curves || hidden.has(index)) continue;
    lines.push({ name: job.label, points: curves.adapted, colour: colour(index), stages: true });
    const key = JSON.stringify(curves.source_cpt);
    if (curves.source_cpt.length && !seen.has(key)) lines.push({ name: "baseline: the source model trained on with its own vocabulary", points: curves.source_cpt, colour: "#5a6675", dashes: "7 4" });
    seen.add(key);
  }
  return lines;
}
function drawLearning(holder) {
  const { dataset, axis, hidden } = learningChoice;
  const lines = learningLines();
  const points = lines.flatMap((line) => line.points);
  if (!points.length) { holder.replaceChildren(el("p", {}, "Nothing to draw for this choice.")); return; }
  const sources = [...new Set(withLearning.filter(({ index }) => !hidden.has(index)).map(({ job }) => job.learning[dataset]?.source).filter(has))];
  const box = { left: 66, right: 1180, top: 14, bottom: 380 };
  const values = [...points.map((point) => point.bpb), ...sources];
  const spread = (Math.max(...values) - Math.min(...values) || 0.1) * 0.06;
  const yLow = Math.min(...values) - spread, yHigh = Math.max(...values) + spread;
  const xHigh = Math.max(...points.map((point) => point[axis]), 1);
  const x = scale(0, xHigh, box.left, box.right, false), y = scale(yLow, yHigh, box.bottom, box.top, false);
  const svg = el("svg", { viewBox: "0 0 1200 424", role: "img", "aria-label": `Bits per byte on ${dataset} over ${LEARNING_AXES[axis]}, one line per job` });
  axes(svg, box, x, y, [], ticks(yLow, yHigh, false), LEARNING_AXES[axis], "bits per byte");
  for (const value of ticks(0, xHigh, false, 8)) {
    svg.append(el("line", { class: "axis", x1: x(value), x2: x(value), y1: box.bottom, y2: box.bottom + 4 }));
    svg.append(el("text", { x: x(value), y: box.bottom + 17, "text-anchor": "middle" }, value === 0 ? "0" : amount(value, axis)));
  }
  for (const source of sources) {
    svg.append(el("line", { class: "source", x1: box.left, x2: box.right, y1: y(source), y2: y(source), stroke: "#1c2430", "stroke-dasharray": "2 4" }));
    svg.append(el("text", { class: "value", x: box.right, y: y(source) - 5, "text-anchor": "end" }, `source model, untouched: ${source.toFixed(4)}`));
  }
  for (const line of lines) {
    const path = line.points.map((point, place) => `${place ? "L" : "M"}${x(point[axis]).toFixed(1)} ${y(point.bpb).toFixed(1)}`).join("");
    svg.append(el("path", { d: path, fill: "none", stroke: line.colour, "stroke-width": 1.8, "stroke-dasharray": line.dashes, "stroke-linejoin": "round" }));
    for (const point of line.points) {
      const begun = point.stage === "stage2" || point.stage === "source_cpt";
      svg.append(el("circle", {
        cx: x(point[axis]), cy: y(point.bpb), r: 3.4, stroke: line.colour, "stroke-width": 1.4, fill: begun ? line.colour : "#fff",
        onmousemove: (event) => tip(`${line.name}\n${STAGE_WORDS[point.stage] ?? point.stage}, step ${point.step}: ${point.bpb.toFixed(4)} BPB\n${amount(point.bytes, "bytes")}, ${duration(point.seconds)}`, event),
        onmouseleave: () => tip(null),
      }));
    }
  }
  holder.replaceChildren(svg, drawMeetings(dataset));
}
// After how much training each adapted model was as good as the source model that it was made of.
function drawMeetings(dataset) {
  const rows = withLearning.filter(({ job }) => job.learning[dataset] && has(job.learning[dataset].source));
  const last = (curves) => curves.adapted[curves.adapted.length - 1]?.bpb;
  const columns = [
    { name: "job", cell: ({ job, index }) => el("span", { class: "item" }, swatch(index), job.label) },
    { name: "source", number: true, cell: ({ job }) => fixed(job.learning[dataset].source, 4) },
    { name: "adapted, at the end", number: true, cell: ({ job }) => fixed(last(job.learning[dataset]), 4) },
    { name: "steps until as good as the source", number: true, cell: ({ job }) => (job.learning[dataset].met ? grouped(job.learning[dataset].met.steps) : "not reached") },
    { name: "text read by then", number: true, cell: ({ job }) => (job.learning[dataset].met ? amount(job.learning[dataset].met.bytes, "bytes") : NONE) },
    { name: "training time", number: true, cell: ({ job }) => duration(job.learning[dataset].met?.seconds) },
  ];
  return rows.length ? simpleTable("Bits per byte of the documents that are scored on the way", columns, rows) : "";
}
const STAGE_WORDS = { init: "initialised", stage1: "stage 1", stage2: "stage 2", source: "source model", source_cpt: "baseline" };
function drawLearningPanel() {
  const body = panel("learning-body");
  if (!learningSets.length) { body.append(el("p", {}, "No job has scores over training yet; evaluation.every_steps says how often they are made.")); return; }
  learningChoice.dataset = learningSets[0];
  const holder = el("div", { id: "learning-plot" });
  const redraw = () => drawLearning(holder);
  const choose = (name, options, key) => el("label", {}, name + " ", el("select", {
    onchange: (event) => { learningChoice[key] = event.target.value; redraw(); },
  }, ...options.map(([value, text]) => el("option", { value }, text))));
  const legend = withLearning.map(({ job, index }) => el("li", {}, el("button", {
    type: "button", "aria-pressed": "true",
    onclick: (event) => {
      const off = !learningChoice.hidden.delete(index);
      if (off) learningChoice.hidden.add(index);
      event.currentTarget.setAttribute("aria-pressed", String(!off));
      redraw();
    },
  }, swatch(index), job.label)));
  if (withLearning.some(({ job }) => Object.values(job.learning).some((curves) => curves.source_cpt.length)))
    legend.push(el("li", {}, el("span", { class: "item" }, el("span", { class: "dash", "aria-hidden": "true" }), "baseline: source model trained on with its own vocabulary")));
  body.append(
    el("div", { class: "controls" }, choose("Data set", learningSets.map((name) => [name, name]), "dataset"), choose("over", Object.entries(LEARNING_AXES), "axis")),
    el("ul", { class: "legend", "aria-label": "Jobs: press to hide or show" }, ...legend), holder);
  redraw();
}
drawLearningPanel();
