// The comparison table: sortable, best in bold, differences from the first job shaded.
const tableColumns = [];
function addColumn(column) { tableColumns.push({ group: "", number: true, ...column }); }

const REFERENCE = JOBS[DATA.reference];

function addSettings(settings, group) {
  for (const setting of settings)
    addColumn({ name: setting.name, group, number: false, setting: true, title: setting.key, value: (job) => job.settings[setting.key] });
}

// In front what tells the jobs apart, behind the scores what else differs.
const telling = DATA.settings.filter((setting) => setting.first);
if (!telling.length) addColumn({ name: "job", number: false, value: (job) => job.name });
addSettings(telling, "");
for (const dataset of DATA.datasets)
  for (const stage of DATA.stages)
    addColumn({
      name: stage.name, group: `BPB · ${DATA.titles[dataset]}`, digits: 4, delta: true,
      value: (job) => job.bpb[dataset]?.[stage.key],
      best: (index) => stage.key === "final" && DATA.best[dataset] === index,
    });
// A value with the ends of its interval of 95 %: [value, low, high].
function addInterval(name, group, triple, text, title) {
  addColumn({ name, group, title, value: (job) => triple(job)?.[0] ?? null, interval: triple, text });
}
for (const dataset of DATA.datasets)
  if (JOBS.some((job) => job.bpb_difference[dataset]))
    addInterval(DATA.titles[dataset], "BPB · final − source", (job) => job.bpb_difference[dataset], (value) => signedBy(value, 4), "below zero: better than the source model");
addColumn({ name: "coverage", value: (job) => job.coverage, text: (value) => percent(value) });
for (const dataset of DATA.datasets)
  for (const side of ["source", "target"])
    addColumn({ name: side, group: `bytes / token · ${dataset}`, digits: 2, value: (job) => job.bytes_per_token[dataset]?.[side] });
addColumn({ name: "time", value: (job) => job.seconds, text: duration });
addColumn({ name: "state", number: false, value: (job) => job.state, state: true });
addSettings(DATA.settings.filter((setting) => !setting.first), "other settings that differ");

function signedBy(value, digits) { return has(value) ? (value >= 0 ? "+" : "") + value.toFixed(digits) : NONE; }
function comparable(text) {
  const value = Number(text);
  return typeof text === "string" && text.trim() !== "" && Number.isFinite(value) ? value : text;
}
function order(a, b) {
  const empty = (value) => value === null || value === undefined || value === "none";
  if (empty(a) || empty(b)) return empty(a) - empty(b);
  a = comparable(a); b = comparable(b);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}
function cellOf(column, job, index) {
  const value = column.value(job);
  if (column.state) return el("td", {}, el("span", { class: `state ${job.state}`, title: job.error }, job.state));
  const text = column.text ? column.text(value) : column.number ? fixed(value, column.digits) : value ?? NONE;
  const cell = el("td", { class: column.number ? "num" : null }, text);
  const ends = column.interval?.(job);
  if (ends) cell.append(el("small", {}, `${column.text(ends[1])} to ${column.text(ends[2])}`));
  const first = column.value(REFERENCE);
  if (column.setting && column !== tableColumns[0] && job !== REFERENCE && value !== first) cell.classList.add("differs");
  if (column.best?.(index)) cell.classList.add("best");
  if (column.delta && job !== REFERENCE && has(value) && has(first) && first !== 0) {
    const change = value / first - 1;
    const strength = Math.min(0.42, Math.abs(change) * 3);
    if (Math.abs(change) >= 0.0005) {
      cell.style.background = `rgba(var(--${change < 0 ? "good" : "bad"}-tint), ${strength.toFixed(3)})`;
      cell.append(el("small", {}, signed(change)));
    }
  }
  return cell;
}
function drawTable() {
  const rows = JOBS.map((job, index) => ({ job, index, row: null }));
  for (const entry of rows) {
    entry.row = el("tr", { "data-job": entry.job.name }, ...tableColumns.map((column) => cellOf(column, entry.job, entry.index)));
    entry.row.firstChild.prepend(swatch(entry.index));
  }
  const body = el("tbody", {}, ...rows.map((entry) => entry.row));
  const heads = tableColumns.map((column) => {
    const button = el("button", { type: "button", title: column.title, onclick: () => sort(column) }, column.name);
    return el("th", { scope: "col", class: column.number ? "num" : null, "aria-sort": "none" }, button);
  });
  let sorted = null, direction = 1;
  function sort(column) {
    direction = sorted === column ? -direction : 1;
    sorted = column;
    heads.forEach((head, index) =>
      head.setAttribute("aria-sort", tableColumns[index] !== column ? "none" : direction > 0 ? "ascending" : "descending"));
    const missing = (entry) => !column.setting && (column.value(entry.job) ?? null) === null;
    rows.sort((a, b) => missing(a) - missing(b) || direction * order(column.value(a.job), column.value(b.job)) || a.index - b.index);
    body.append(...rows.map((entry) => entry.row));
  }
  const spans = [];
  for (const column of tableColumns) {
    const last = spans[spans.length - 1];
    if (last && last.group === column.group) last.size++;
    else spans.push({ group: column.group, size: 1 });
  }
  const top = el("tr", {}, ...spans.map((span) =>
    span.group ? el("th", { class: "span", colspan: span.size, scope: "colgroup" }, span.group) : el("td", { colspan: span.size })));
  panel("table-body").append(
    el("div", { class: "scroll" }, el("table", { id: "comparison" }, el("thead", {}, top, el("tr", {}, ...heads)), body)));
}
const points = (value) => (has(value) ? signedBy(100 * value, 1) : NONE);
function withInterval(triple, text) {
  return triple ? el("span", {}, text(triple[0]), el("small", {}, ` ${text(triple[1])} to ${text(triple[2])}`)) : NONE;
}
// Right answers have tables of their own, one for each task: beside the scores they would stand out of sight.
function drawAnswers() {
  for (const task of DATA.tasks) {
    const shares = DATA.answered.map((stage) => ({ name: stage.name, number: true, cell: (job) => withInterval(job.answers[task]?.[stage.key], (value) => percent(value)) }));
    const differences = DATA.answered.filter((stage) => stage.key !== "source").map((stage) => ({
      name: `${stage.name} − source, points`, number: true, cell: (job) => withInterval(job.answers[task]?.difference[stage.key], points) }));
    const columns = [
      { name: "job", cell: (job) => el("span", { class: "item" }, swatch(JOBS.indexOf(job)), job.label) }, ...shares, ...differences,
      { name: "questions", number: true, cell: (job) => grouped(job.answers[task]?.questions) }];
    panel("table-answers").append(el("h3", {}, `Right answers: ${DATA.titles[task]}`), simpleTable(null, columns, JOBS));
  }
}
function drawSeeds() {
  if (!DATA.seeds.length) return;
  const settings = DATA.settings.filter((setting) => setting.key !== "seed");
  const columns = [
    ...settings.map((setting) => ({ name: setting.name, cell: (row) => row.settings[setting.key] })),
    { name: "seeds", number: true, cell: (row) => String(row.seeds) },
    ...DATA.datasets.flatMap((dataset) => DATA.stages.map((stage) => ({
      name: `${dataset} ${stage.name}`, number: true,
      cell: (row) => { const [mean, spread] = row.bpb[dataset][stage.key]; return has(mean) ? `${mean.toFixed(4)} ± ${fixed(spread, 4)}` : NONE; },
    }))),
  ];
  panel("table-seeds").append(el("h3", {}, "Mean ± standard deviation over seeds"), simpleTable("Bits per byte of completed jobs that differ in their seed only", columns, DATA.seeds));
}
function drawTroubles() {
  const lines = JOBS.flatMap((job) => [
    ...(["failed", "interrupted"].includes(job.state) ? [`${job.name}: ${job.state}: ${job.error ?? "no reason was left"}`] : []),
    ...job.problems.map((problem) => `${job.name}: unreadable ${problem}`),
  ]);
  if (!lines.length) return;
  panel("table-troubles").append(el("h3", {}, "What went wrong"), el("div", { class: "troubles" }, el("ul", {}, ...lines.map((line) => el("li", {}, line)))));
}
function drawFacts() {
  const states = {};
  for (const job of JOBS) states[job.state] = (states[job.state] ?? 0) + 1;
  const counted = Object.entries(states).map(([state, count]) => `${count} ${state}`).join(", ");
  const total = JOBS.reduce((sum, job) => sum + (job.seconds ?? 0), 0);
  panel("reference").textContent = DATA.datasets.length ? `the first scored job (${REFERENCE.label})` : "the first job";
  panel("facts").textContent = `${JOBS.length} jobs: ${counted} · ${duration(total)} in all · made ${DATA.made}`;
}
drawFacts(); drawTable(); drawAnswers(); drawSeeds(); drawTroubles();
