// Bars of bits per byte by stage, and training curves of all jobs.
function drawBars(dataset) {
  const stages = DATA.stages.filter((stage) => JOBS.some((job) => has(job.bpb[dataset]?.[stage.key])));
  const scored = JOBS.map((job, index) => ({ job, index })).filter(({ job }) => stages.some((stage) => has(job.bpb[dataset]?.[stage.key])));
  if (!scored.length) return null;
  const box = { left: 58, right: 1180, top: 16, bottom: 262 };
  const high = Math.max(...scored.flatMap(({ job }) => stages.map((stage) => job.bpb[dataset][stage.key]).filter(has))) * 1.06;
  const y = scale(0, high, box.bottom, box.top, false);
  const svg = el("svg", { viewBox: "0 0 1200 306", role: "img", "aria-label": `Bits per byte on ${dataset} by stage and job` });
  axes(svg, box, () => 0, y, [], ticks(0, high, false), "", "bits per byte");
  const slot = (box.right - box.left) / stages.length;
  const width = Math.min(64, (slot * 0.86) / scored.length);
  stages.forEach((stage, position) => {
    const left = box.left + slot * position + (slot - width * scored.length) / 2;
    svg.append(el("text", { x: box.left + slot * (position + 0.5), y: box.bottom + 20, "text-anchor": "middle" }, stage.name));
    scored.forEach(({ job, index }, place) => {
      const value = job.bpb[dataset][stage.key];
      if (!has(value)) return;
      const x = left + place * width;
      svg.append(el("rect", {
        x: x + Math.min(1.5, width * 0.08), y: y(value), width: Math.max(0.8, width - Math.min(3, width * 0.16)), height: box.bottom - y(value), fill: colour(index),
        onmousemove: (event) => tip(`${job.label}\n${stage.name}: ${value.toFixed(4)} BPB`, event), onmouseleave: () => tip(null),
      }));
      if (width >= 34) svg.append(el("text", { class: "value", x: x + width / 2, y: y(value) - 4, "text-anchor": "middle" }, value.toFixed(width >= 44 ? 3 : 2)));
    });
  });
  return svg;
}
function drawStages() {
  const body = panel("stages-body");
  const scored = JOBS.map((job, index) => [job, index]).filter(([job]) => Object.values(job.bpb).some((scores) => Object.values(scores).some(has)));
  const legend = scored.map(([job, index]) => el("li", {}, el("span", { class: "item" }, swatch(index), job.label)));
  body.append(el("ul", { class: "legend", "aria-label": "Jobs" }, ...legend));
  const charts = DATA.datasets.map((dataset) => [dataset, drawBars(dataset)]).filter(([, chart]) => chart);
  for (const [dataset, chart] of charts) body.append(el("h3", {}, dataset), chart);
  if (!charts.length) body.append(el("p", {}, "No job has a score yet."));
}

const MEASURES = { loss: "loss (nats per token)", grad_norm: "gradient norm before clipping", lr: "learning rate" };
const curveChoice = { stage: "both", measure: "loss", logX: false, logY: false, hidden: new Set() };

// Points [step, value] of a job; "both" puts stage 2 behind stage 1.
function curveOf(job, { stage, measure }) {
  const parts = stage === "both" ? ["stage1", "stage2"] : [stage];
  let offset = 0;
  const points = [];
  for (const name of parts) {
    const part = job.curves[name];
    if (!part) continue;
    part.step.forEach((step, index) => points.push([offset + step, part[measure][index]]));
    offset += Math.max(0, ...part.step.filter(has));
    points.push([offset, null]);
  }
  return points;
}
function drawCurves(holder) {
  const { measure, logX, logY, hidden } = curveChoice;
  const visible = (value, log) => has(value) && (!log || value > 0);
  const curves = JOBS.map((job, index) => ({ job, index, points: hidden.has(index) ? [] : curveOf(job, curveChoice) }));
  const shown = curves.flatMap(({ points }) => points.filter(([step, value]) => visible(step, logX) && visible(value, logY)));
  if (!shown.length) { holder.replaceChildren(el("p", {}, "Nothing to draw for this choice.")); return; }
  const low = (place) => shown.reduce((best, point) => Math.min(best, point[place]), Infinity);
  const high = (place) => shown.reduce((best, point) => Math.max(best, point[place]), -Infinity);
  const box = { left: 66, right: 1180, top: 14, bottom: 380 };
  const xLow = low(0), xHigh = Math.max(high(0), xLow + 1);
  const pad = logY ? 1.04 : 0;
  const spread = (high(1) - low(1) || Math.abs(high(1)) || 1) * 0.04;
  const yLow = logY ? low(1) / pad : low(1) - spread, yHigh = logY ? high(1) * pad : high(1) + spread;
  const x = scale(xLow, xHigh, box.left, box.right, logX), y = scale(yLow, yHigh, box.bottom, box.top, logY);
  const svg = el("svg", { viewBox: "0 0 1200 424", role: "img", "aria-label": `${MEASURES[measure]} over optimiser steps, one line per job` });
  axes(svg, box, x, y, ticks(xLow, xHigh, logX, 10), ticks(yLow, yHigh, logY), "optimiser step", MEASURES[measure]);
  for (const { index, points } of curves) {
    let path = "", pen = "M";
    for (const [step, value] of points) {
      if (!visible(step, logX) || !visible(value, logY)) { pen = "M"; continue; }
      path += `${pen}${x(step).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    }
    if (path) svg.append(el("path", { d: path, fill: "none", stroke: colour(index), "stroke-width": JOBS.length > 12 ? 1.1 : 1.7, "stroke-linejoin": "round" }));
  }
  const mark = el("circle", { r: 4, fill: "none", stroke: "#1c2430", visibility: "hidden" });
  svg.append(mark);
  svg.addEventListener("mousemove", (event) => {
    const place = svg.getBoundingClientRect(), ratio = 1200 / place.width;
    const px = (event.clientX - place.left) * ratio, py = (event.clientY - place.top) * ratio;
    let best = null, distance = 40 ** 2;
    for (const { job, points } of curves)
      for (const [step, value] of points) {
        if (!visible(step, logX) || !visible(value, logY)) continue;
        const away = (x(step) - px) ** 2 + (y(value) - py) ** 2;
        if (away < distance) { distance = away; best = { job, step, value }; }
      }
    mark.setAttribute("visibility", best ? "visible" : "hidden");
    if (!best) { tip(null); return; }
    mark.setAttribute("cx", x(best.step)); mark.setAttribute("cy", y(best.value));
    tip(`${best.job.label}\nstep ${best.step}: ${compact(best.value)}`, event);
  });
  svg.addEventListener("mouseleave", () => { tip(null); mark.setAttribute("visibility", "hidden"); });
  holder.replaceChildren(svg);
}
function drawCurvePanel() {
  const holder = el("div", { id: "curve-plot" });
  const redraw = () => drawCurves(holder);
  const choose = (name, options, key) => el("label", {}, name + " ", el("select", {
    onchange: (event) => { curveChoice[key] = event.target.value; redraw(); },
  }, ...Object.entries(options).map(([value, text]) => el("option", { value }, text))));
  const toggle = (name, key) => el("label", {}, el("input", {
    type: "checkbox", id: key, onchange: (event) => { curveChoice[key] = event.target.checked; redraw(); },
  }), " " + name);
  const legend = JOBS.map((job, index) => [job, index]).filter(([job]) => Object.keys(job.curves).length).map(([job, index]) =>
    el("li", {}, el("button", {
      type: "button", "aria-pressed": "true",
      onclick: (event) => {
        const off = !curveChoice.hidden.delete(index);
        if (off) curveChoice.hidden.add(index);
        event.currentTarget.setAttribute("aria-pressed", String(!off));
        redraw();
      },
    }, swatch(index), job.label)));
  panel("curves-body").append(
    el("div", { class: "controls" },
      choose("Show", MEASURES, "measure"),
      choose("of", { both: "stage 1, then stage 2", stage1: "stage 1", stage2: "stage 2" }, "stage"),
      toggle("log value axis", "logY"), toggle("log step axis", "logX")),
    el("ul", { class: "legend", "aria-label": "Jobs: press to hide or show" }, ...legend), holder);
  redraw();
}
drawStages(); drawCurvePanel();
