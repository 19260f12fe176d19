// Helpers of all panels: elements, numbers, colours, axes.
const DATA = JSON.parse(document.getElementById("data").textContent);
const JOBS = DATA.jobs;
const NONE = "–";

function el(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "rect", "text", "circle", "title"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const panel = (id) => document.getElementById(id);
const has = (value) => typeof value === "number" && Number.isFinite(value);
const fixed = (value, digits) => (has(value) ? value.toFixed(digits) : NONE);
const grouped = (value) => (has(value) ? Math.round(value).toLocaleString("en") : NONE);
const percent = (value, digits = 1) => (has(value) ? (100 * value).toFixed(digits) + " %" : NONE);
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(100 * value).toFixed(1) + " %";
function compact(value) {
  if (!has(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1).replace("e+", "e");
  return String(+value.toPrecision(4));
}
function duration(seconds) {
  if (!has(seconds)) return NONE;
  if (seconds < 120) return seconds.toFixed(seconds < 10 ? 1 : 0) + " s";
  if (seconds < 7200) return (seconds / 60).toFixed(1) + " min";
  return (seconds / 3600).toFixed(1) + " h";
}
function bytes(value) {
  if (!has(value)) return NONE;
  return value >= 2 ** 30 ? (value / 2 ** 30).toFixed(2) + " GiB" : (value / 2 ** 20).toFixed(0) + " MiB";
}

// Okabe and Ito's colours, told apart by colour-blind readers too; beyond seven jobs, hues in golden-angle steps.
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b08800", "#56a3d9", "#5b5b5b"];
const colour = (index) =>
  JOBS.length <= PALETTE.length ? PALETTE[index] : `hsl(${(index * 137.5) % 360} 58% ${index % 2 ? 38 : 50}%)`;
const swatch = (index) => el("span", { class: "swatch", style: `background:${colour(index)}`, "aria-hidden": "true" });

function tip(text, event) {
  const box = panel("tip");
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  box.style.left = Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8) + "px";
  box.style.top = Math.max(6, event.clientY - box.offsetHeight - 10) + "px";
}

// Round numbers between low and high; on a log axis the decades, with 2 and 5 between them where decades are few.
function ticks(low, high, log, count = 6) {
  if (log) {
    const all = [];
    const steps = Math.log10(high / low) > 4 ? [1] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const step of steps) all.push(step * 10 ** power);
    const inside = all.filter((value) => value >= low * 0.999 && value <= high * 1.001);
    if (inside.length > 1) return inside;
  }
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const marks = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) marks.push(+value.toPrecision(10));
  return marks;
}
function scale(low, high, from, to, log) {
  const turn = log ? Math.log : (value) => value;
  const span = turn(high) - turn(low) || 1;
  return (value) => from + ((turn(value) - turn(low)) / span) * (to - from);
}
// Gridlines and labels of a plot whose inner box is [left, right] x [top, bottom].
function axes(svg, box, x, y, xTicks, yTicks, xName, yName) {
  for (const value of yTicks) {
    svg.append(el("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    svg.append(el("text", { x: box.left - 7, y: y(value) + 4, "text-anchor": "end" }, compact(value)));
  }
  for (const value of xTicks) {
    svg.append(el("line", { class: "axis", x1: x(value), x2: x(value), y1: box.bottom, y2: box.bottom + 4 }));
    svg.append(el("text", { x: x(value), y: box.bottom + 17, "text-anchor": "middle" }, compact(value)));
  }
  svg.append(el("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  svg.append(el("text", { x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, xName));
  const middle = (box.top + box.bottom) / 2;
  svg.append(el("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, yName));
}
// A table from columns {name, cell(row), number}; cells are text or elements.
function simpleTable(caption, columns, rows) {
  const head = el("tr", {}, ...columns.map((column) => el("th", { class: column.number && "num", scope: "col" }, column.name)));
  const body = rows.map((row) =>
    el("tr", {}, ...columns.map((column) => {
      const inner = column.cell(row);
      return el("td", { class: [column.number && "num", column.wide && "wide"].filter(Boolean).join(" ") || null }, inner ?? NONE);
    })));
  return el("div", { class: "scroll" }, el("table", {}, caption && el("caption", {}, caption), el("thead", {}, head), el("tbody", {}, ...body)));
}
