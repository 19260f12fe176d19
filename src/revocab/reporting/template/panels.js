// Alignment, checklist, cost and commands.
const ORIGINS = { exact: "#0072b2", role: "#56a3d9", vectors: "#009e73", subtokens: "#7fbf7b", mixed: "#44a08d", unseen: "#d55e00", below_threshold: "#e69f00", baseline: "#999999" };
const jobsOf = (index) => JOBS.filter((job) => job.alignment === index);
function alignmentName(index) {
  const members = jobsOf(index);
  return members.length > 1 ? `${members[0].label} and ${members.length - 1} more` : members[0].label;
}
function drawOrigins() {
  const rows = DATA.alignments.map((alignment, index) => ({ name: alignmentName(index), origins: Object.entries(alignment.origins) })).filter((row) => row.origins.length);
  if (!rows.length) return null;
  const height = rows.length * 30 + 34, left = 300, right = 1180;
  const svg = el("svg", { viewBox: `0 0 1200 ${height}`, role: "img", "aria-label": "Origins of target tokens per alignment, in percent" });
  const x = scale(0, 1, left, right, false);
  rows.forEach((row, place) => {
    const total = row.origins.reduce((sum, [, count]) => sum + count, 0) || 1;
    const label = row.name.length > 44 ? row.name.slice(0, 43) + "…" : row.name;
    svg.append(el("text", { x: left - 10, y: place * 30 + 19, "text-anchor": "end" }, el("title", {}, row.name), label));
    let from = 0;
    for (const [origin, count] of row.origins) {
      const share = count / total;
      svg.append(el("rect", { x: x(from), y: place * 30 + 4, width: Math.max(0, x(from + share) - x(from)), height: 22, fill: ORIGINS[origin] ?? "#777",
        onmousemove: (event) => tip(`${row.name}\n${origin.replaceAll("_", " ")}: ${grouped(count)} tokens, ${percent(share)}`, event), onmouseleave: () => tip(null) }));
      if (share > 0.06) svg.append(el("text", { x: x(from + share / 2), y: place * 30 + 19, "text-anchor": "middle", style: "fill:#fff" }, percent(share)));
      from += share;
    }
  });
  for (const value of [0, 0.25, 0.5, 0.75, 1]) svg.append(el("text", { x: x(value), y: height - 8, "text-anchor": "middle" }, percent(value, 0)));
  const names = [...new Set(rows.flatMap((row) => row.origins.map(([origin]) => origin)))];
  const legend = names.map((name) => el("li", {}, el("span", { class: "item" }, el("span", { class: "swatch", style: `background:${ORIGINS[name] ?? "#777"}` }), name.replaceAll("_", " "))));
  return el("div", {}, el("h3", {}, "Origins of target tokens"), el("ul", { class: "legend" }, ...legend), svg);
}
function drawHistogram({ edges, counts }) {
  const box = { left: 66, right: 404, top: 12, bottom: 190 };
  const high = Math.max(...counts, 1);
  const x = scale(edges[0], edges[edges.length - 1], box.left, box.right, false), y = scale(0, high * 1.05, box.bottom, box.top, false);
  const svg = el("svg", { viewBox: "0 0 420 232", role: "img", "aria-label": "Histogram of the similarity of target tokens to their best match" });
  axes(svg, box, x, y, ticks(edges[0], edges[edges.length - 1], false, 6), ticks(0, high, false, 5), "similarity of the best match", "target tokens");
  counts.forEach((count, index) => svg.append(el("rect", { x: x(edges[index]) + 0.5, y: y(count), width: Math.max(0.5, x(edges[index + 1]) - x(edges[index]) - 1), height: box.bottom - y(count), fill: "#009e73",
    onmousemove: (event) => tip(`${compact(edges[index])} to ${compact(edges[index + 1])}: ${grouped(count)} tokens`, event), onmouseleave: () => tip(null) })));
  return el("div", {}, el("h3", {}, "Similarity of the best match"), svg);
}
function cellText(value) {
  if (value === null || value === undefined) return NONE;
  if (Array.isArray(value) && value.length === 2 && typeof value[0] === "string" && has(value[1])) return `${cellText(value[0])} (${compact(value[1])})`;
  if (Array.isArray(value)) return value.length === 0 ? NONE : value.map(cellText).join(", ");
  if (typeof value === "object") return Object.values(value).map(cellText).join(" ");
  if (typeof value === "number") return Number.isInteger(value) ? grouped(value) : compact(value);
  return JSON.stringify(String(value)).slice(1, -1).replace(/^ | $/g, "␣"); // a space at the edge of a token is part of it
}
function drawRecords(title, records) {
  const keys = [...new Set(records.flatMap(Object.keys))];
  const columns = keys.map((key) => ({ name: key.replaceAll("_", " "), number: records.every((row) => row[key] === null || row[key] === undefined || typeof row[key] === "number"), wide: records.some((row) => Array.isArray(row[key])), cell: (row) => (key === "id" ? String(row[key] ?? NONE) : cellText(row[key])) }));
  return el("div", { class: keys.length > 5 ? "whole" : null }, el("h3", {}, title), simpleTable(null, columns, records));
}
function drawOneAlignment(holder, index) {
  const alignment = DATA.alignments[index];
  const tiles = Object.entries(alignment.counts).map(([name, value]) => el("div", { class: "tile" }, el("b", {}, /share|coverage/.test(name) ? percent(value) : cellText(value)), el("span", {}, name.replaceAll("_", " "))));
  const details = Object.entries(alignment.details).map(([name, value]) => ({ name, value }));
  const numbers = details.length && el("div", {}, el("h3", {}, "Details"), simpleTable(null, [
    { name: "what", cell: (row) => row.name.replaceAll("_", " ") }, { name: "value", number: true, cell: (row) => cellText(row.value) }], details));
  const parts = [alignment.histogram && drawHistogram(alignment.histogram), numbers, ...alignment.tables.map((table) => drawRecords(table.title, table.rows))].filter(Boolean);
  holder.replaceChildren(el("div", { class: "tiles" }, ...tiles), el("div", { class: "columns" }, ...parts));
}
function drawAlignment() {
  const body = panel("alignment-body");
  if (!DATA.alignments.length) { body.append(el("p", {}, "No job has left an alignment report yet.")); return; }
  const origins = drawOrigins();
  if (origins) body.append(origins);
  const holder = el("div");
  const options = DATA.alignments.map((_, index) => el("option", { value: index }, alignmentName(index)));
  const select = el("select", { id: "alignment-choice", onchange: (event) => drawOneAlignment(holder, +event.target.value) }, ...options);
  body.append(el("div", { class: "controls", style: "margin-top:16px" }, el("label", {}, "Alignment of ", select)), holder);
  drawOneAlignment(holder, 0);
}
function drawChecks() {
  const names = [...new Set(JOBS.flatMap((job) => job.checks.map((check) => check.name)))];
  const limits = Object.fromEntries(JOBS.flatMap((job) => job.checks.map((check) => [check.name, check.limit])));
  if (!names.length) { panel("checks-body").append(el("p", {}, "No job has been checked yet.")); return; }
  const columns = [
    { name: "job", cell: (job) => el("span", { class: "item" }, swatch(JOBS.indexOf(job)), job.label) },
    ...names.map((name) => ({
      name, cell: (job) => {
        const check = job.checks.find((one) => one.name === name);
        if (!check) return NONE;
        const mark = check.passed ? "✓ pass" : "✗ fail";
        return el("span", { class: check.passed ? "pass" : "fail", title: `limit ${check.limit}` }, mark, el("small", { style: "color:var(--soft);font-weight:400" }, " " + compact(check.value)));
      },
    })),
  ];
  const table = simpleTable(null, columns, JOBS);
  const limitRow = el("tr", {}, el("td", {}, "limit"), ...names.map((name) => el("td", {}, compact(limits[name]))));
  table.querySelector("thead").append(limitRow);
  table.querySelectorAll("thead th").forEach((head) => (head.style.whiteSpace = "normal"));
  panel("checks-body").append(table);
}
function drawCost() {
  const rows = JOBS.flatMap((job, index) => ["stage1", "stage2"].filter((stage) => has(job.cost[stage].steps)).map((stage) => ({ job, index, stage, ...job.cost[stage] })));
  if (!rows.length) { panel("cost-body").append(el("p", {}, "No stage has ended yet.")); return; }
  const columns = [
    { name: "job", cell: (row) => el("span", { class: "item" }, swatch(row.index), row.job.label) },
    { name: "stage", cell: (row) => (row.stage === "stage1" ? "stage 1" : "stage 2") },
    { name: "trains", cell: (row) => row.kind },
    { name: "steps", number: true, cell: (row) => grouped(row.steps) },
    { name: "tokens", number: true, cell: (row) => grouped(row.tokens) },
    { name: "time", number: true, cell: (row) => duration(row.seconds) },
    { name: "device hours", number: true, cell: (row) => (has(row.seconds) ? (row.seconds / 3600).toPrecision(3) : NONE) },
    { name: "tokens / s", number: true, cell: (row) => grouped(row.tokens_per_second) },
    { name: "peak memory", number: true, cell: (row) => bytes(row.peak_memory_bytes) },
    { name: "trained parameters", number: true, cell: (row) => grouped(row.trainable_parameters) },
    { name: "device", cell: (row) => row.job.device },
  ];
  panel("cost-body").append(simpleTable(null, columns, rows));
}
function drawCommands() {
  const body = panel("commands-body");
  JOBS.forEach((job, index) => {
    const facts = el("div", {}, el("span", { class: "item" }, swatch(index), job.label, job.run_id ? ` · run ${job.run_id}` : ""), el("pre", {}, job.command ?? "The job left no command; its config.yaml holds every value."));
    body.append(el("div", { class: "command" }, facts));
  });
  if (DATA.upload) body.append(el("h3", {}, "Send the offline runs to Weights & Biases"), el("div", { class: "command" }, el("pre", {}, DATA.upload)));
}
drawAlignment(); drawChecks(); drawCost(); drawCommands();
