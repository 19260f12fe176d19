// What the two tokenizers make of held-out text: bytes per token by kind of document, and sentences token by token.
const SIDES = { source: "#5a6675", target: "#0072b2" };
function jobChoice(id, jobs, draw) {
  const options = jobs.map(({ job, index }) => el("option", { value: index }, job.label));
  return el("div", { class: "controls" }, el("label", {}, "Job ", el("select", { id, onchange: (event) => draw(JOBS[+event.target.value]) }, ...options)));
}

function drawKinds(holder, job) {
  const rows = job.kinds, left = 300, right = 1060, height = rows.length * 40 + 34;
  const svg = el("svg", { viewBox: `0 0 1200 ${height}`, role: "img", "aria-label": "Bytes per token of the source and the target tokenizer, by kind of document" });
  const high = Math.max(...rows.flatMap((row) => [row.source, row.target]));
  const x = scale(0, high * 1.02, left, right, false);
  for (const value of ticks(0, high, false, 6)) {
    svg.append(el("line", { class: "grid", x1: x(value), x2: x(value), y1: 4, y2: height - 26 }));
    svg.append(el("text", { x: x(value), y: height - 8, "text-anchor": "middle" }, compact(value)));
  }
  rows.forEach((row, place) => {
    const name = row.kind === null ? row.dataset : row.kind;
    const count = has(row.documents) ? ` (${grouped(row.documents)})` : "";
    const short = name.length > 34 ? name.slice(0, 33) + "…" : name;
    svg.append(el("text", { x: left - 10, y: place * 40 + 24, "text-anchor": "end", style: row.kind === null ? "font-weight:600;fill:var(--ink)" : null }, el("title", {}, name), short + count));
    Object.entries(SIDES).forEach(([side, fill], number) => {
      svg.append(el("rect", {
        x: left, y: place * 40 + 5 + number * 15, width: x(row[side]) - left, height: 13, fill,
        onmousemove: (event) => tip(`${name}: ${row[side].toFixed(3)} bytes per token, ${side} tokenizer\n${side === "source" ? "source" : "adapted"} model: ${fixed(row.bpb[side], 4)} BPB`, event), onmouseleave: () => tip(null),
      }));
      svg.append(el("text", { class: "value", x: x(row[side]) + 6, y: place * 40 + 15.5 + number * 15 }, `${row[side].toFixed(2)}${side === "target" ? `  (${signed(row.target / row.source - 1)})` : ""}`));
    });
  });
  holder.replaceChildren(svg);
}
function drawKindPanel() {
  const body = panel("kinds-body");
  const jobs = JOBS.map((job, index) => ({ job, index })).filter(({ job }) => job.kinds.length);
  if (!jobs.length) { body.append(el("p", {}, "No job has a score yet.")); return; }
  const holder = el("div", { id: "kinds-plot" });
  const legend = Object.entries(SIDES).map(([side, fill]) => el("li", {}, el("span", { class: "item" }, el("span", { class: "swatch", style: `background:${fill}` }), `${side} tokenizer`)));
  body.append(jobChoice("kinds-choice", jobs, (job) => drawKinds(holder, job)), el("ul", { class: "legend" }, ...legend), holder);
  drawKinds(holder, jobs[0].job);
}

// A token's colour says how many bits a byte of it cost: one scale for all jobs, so that colours compare.
const MOST_BITS = 6;
const heat = (bits, bytes) => `rgba(var(--heat), ${(0.82 * Math.min(1, bits / Math.max(1, bytes) / MOST_BITS)).toFixed(3)})`;
const visibleText = (text) => text.replace(/[\n\r]/g, "⏎").replace(/\t/g, "⇥") || "∅";
function drawToken([text, bytes, bits, whole]) {
  const said = has(bits) ? `${bits.toFixed(2)} bits, ${bytes} ${bytes === 1 ? "byte" : "bytes"}: ${(bits / Math.max(1, bytes)).toFixed(2)} bits per byte` : "no loss was left";
  const name = whole ? JSON.stringify(text) : `part of a character: ${bytes === 1 ? "byte" : "bytes"} ${text}`;
  return el("span", {
    class: whole ? "token" : "token part", style: has(bits) ? `background:${heat(bits, bytes)}` : null,
    onmousemove: (event) => tip(`${name}\n${said}`, event), onmouseleave: () => tip(null),
  }, visibleText(text));
}
function drawSentence(title, tokens) {
  const bits = tokens.reduce((sum, token) => sum + (token[2] ?? 0), 0), bytes = tokens.reduce((sum, token) => sum + token[1], 0);
  const facts = `${tokens.length} tokens · ${(bytes / Math.max(1, tokens.length)).toFixed(2)} bytes per token · ${(bits / Math.max(1, bytes)).toFixed(3)} bits per byte`;
  return el("div", {}, el("h4", {}, title, el("small", {}, facts)), el("p", { class: "tokens" }, ...tokens.map(drawToken)));
}
function drawSegments(holder, job) {
  const adapted = job.segments.adapted ?? [], source = DATA.segments[job.segments.source] ?? [];
  const rows = [];
  for (let place = 0; place < Math.max(source.length, adapted.length); place++) {
    const sides = [source[place] && drawSentence("source model, source tokenizer", source[place].tokens), adapted[place] && drawSentence("adapted model, target tokenizer", adapted[place].tokens)];
    const dataset = (source[place] ?? adapted[place]).dataset;
    rows.push(el("h3", {}, `${dataset ?? ""} · sentence ${place + 1}`), el("div", { class: "sides" }, ...sides));
  }
  holder.replaceChildren(...rows);
}
function drawSegmentPanel() {
  const body = panel("segments-body");
  const jobs = JOBS.map((job, index) => ({ job, index })).filter(({ job }) => job.segments.adapted || has(job.segments.source));
  if (!jobs.length) { body.append(el("p", {}, "No job has left sentences yet.")); return; }
  const holder = el("div", { id: "segments-text" });
  const steps = [0, 1, 2, 3, 4, 5, 6].map((bits) => el("span", { class: "token", style: `background:${heat(bits, 1)}` }, bits < MOST_BITS ? String(bits) : `${bits}+`));
  body.append(jobChoice("segments-choice", jobs, (job) => drawSegments(holder, job)), el("p", { class: "scale" }, "bits per byte of a token ", ...steps), holder);
  drawSegments(holder, jobs[0].job);
}
drawKindPanel(); drawSegmentPanel();
