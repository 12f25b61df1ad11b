"use strict";
// Charts from their numbers, tables that sort and save, and the two parts that the reader steers.
// Texts of the competition reach the page through textContent alone.
const DATA = JSON.parse(document.getElementById("numbers").textContent);
const DASHES = ["", "6 3", "2 3", "9 3 2 3", "1 2", "12 4"];
const FIRST_ROWS = 15;

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "circle", "text", "g", "title"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  for (const child of children) node.append(child);
  return node;
}
const colour = (k) => `var(--c${k % 7})`;
const range = (n) => [...Array(n).keys()];

// ---------- numbers as text

function digits(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}
const percent = (value) => (value === null ? "" : `${Number((100 * value).toPrecision(3))} %`);

function ticks(low, high, wanted) {
  const step0 = (high - low) / wanted, ten = 10 ** Math.floor(Math.log10(step0));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * ten).find((k) => k >= step0 - 1e-12);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(10)));
  return found;
}

// ---------- CSV: a cell that a spreadsheet would run as a formula begins with an apostrophe

function csvCell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save(name, rows) {
  const text = rows.map((row) => row.map(csvCell).join(",")).join("\n") + "\n";
  const link = make("a", { download: `${name}.csv`, href: URL.createObjectURL(new Blob([text], { type: "text/csv" })) });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function saveButton(figure, rows) {
  const button = make("button", { class: "save", type: "button", title: "Save the numbers as a CSV file" }, "CSV");
  button.addEventListener("click", () => save(figure.id, rows()));
  figure.append(button);
}

// ---------- tables

function steerTable(figure) {
  const table = figure.querySelector("table"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, k) => {
    const cell = row.cells[k], raw = cell.dataset.v;
    return raw === undefined ? cell.textContent : raw === "" ? null : Number(raw);
  };
  saveButton(figure, () => [heads.map((head) => head.textContent.trim()), ...[...body.rows].map((row) => heads.map((_, k) => value(row, k)))]);
  let all = body.rows.length <= 2 * FIRST_ROWS;
  const more = make("button", { class: "more", type: "button" }, `Show all ${body.rows.length.toLocaleString("en")} rows`);
  const clip = () => [...body.rows].forEach((row, k) => { row.hidden = !all && k >= FIRST_ROWS; });
  if (!all) {
    more.addEventListener("click", () => { all = true; clip(); more.remove(); });
    figure.append(more);
  }
  clip();
  const sort = (k) => {
    const now = heads[k].getAttribute("aria-sort");  // first click: the largest number, or the first word, on top
    const up = now ? now === "descending" : heads[k].matches(".text, .long");
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[k].setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [value(row, k), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return up ? order : -order;
    });
    body.append(...rows.map(([, row]) => row));
    clip();
  };
  heads.forEach((head, k) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(k));
    head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(k); } });
  });
}

// ---------- charts

function legend(series, lines) {
  const list = make("div", { class: "legend" });
  series.forEach((each, k) => {
    const sample = make("svg", { viewBox: "0 0 26 10" }, lines
      ? make("line", { x1: 0, x2: 26, y1: 5, y2: 5, stroke: colour(k), "stroke-width": 2.2, "stroke-dasharray": DASHES[k % DASHES.length] })
      : make("rect", { x: 6, y: 0, width: 14, height: 10, rx: 2, fill: colour(k) }));
    list.append(make("span", {}, sample, each.name));
  });
  return list;
}

function frame(width, height, edge, box, chart) {
  // the axes of a chart of numbers: an svg, and the two scales
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.title || chart.y });
  const sx = (v) => edge.left + (v - box.x[0]) / (box.x[1] - box.x[0]) * (width - edge.left - edge.right);
  const sy = (v) => height - edge.bottom - (v - box.y[0]) / (box.y[1] - box.y[0]) * (height - edge.top - edge.bottom);
  for (const v of ticks(...box.y, 5)) {
    svg.append(make("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: sy(v), y2: sy(v) }));
    svg.append(make("text", { x: edge.left - 6, y: sy(v) + 4, "text-anchor": "end" }, digits(v)));
  }
  for (const v of ticks(...box.x, 5)) svg.append(make("text", { x: sx(v), y: height - edge.bottom + 15, "text-anchor": "middle" }, digits(v)));
  svg.append(make("line", { class: "axis", x1: edge.left, x2: width - edge.right, y1: height - edge.bottom, y2: height - edge.bottom }));
  svg.append(make("text", { x: (edge.left + width - edge.right) / 2, y: height - 4, "text-anchor": "middle" }, chart.x));
  svg.append(make("text", { x: 2, y: 11 }, chart.y));
  return { svg, sx, sy };
}

function span(values, whole) {
  const found = values.filter((v) => v !== null && v !== undefined && Number.isFinite(v));
  if (!found.length) return [0, 1];
  let low = Math.min(...found), high = Math.max(...found);
  if (whole) low = Math.min(low, 0);
  const edge = (high - low || Math.abs(high) || 1) * 0.05;
  return [whole && low === 0 ? 0 : low - edge, high + edge];
}

function plot(chart) {
  // lines, with bands, or points: both axes are numbers
  const series = chart.series, width = 460, height = 290;
  const box = chart.box || {
    x: span(series.flatMap((s) => s.x), false),
    y: span(series.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])]), false),
  };
  const { svg, sx, sy } = frame(width, height, { left: 48, right: 12, top: 22, bottom: 38 }, box, chart);
  if (chart.diagonal) {
    const low = Math.max(box.x[0], box.y[0]), high = Math.min(box.x[1], box.y[1]);
    if (low < high) svg.append(make("line", { class: "mark", x1: sx(low), y1: sy(low), x2: sx(high), y2: sy(high) }));
  }
  (chart.at || []).forEach(([v, name], k) => {
    if (v < box.x[0] || v > box.x[1]) return;
    svg.append(make("line", { class: "mark", x1: sx(v), x2: sx(v), y1: sy(box.y[0]), y2: sy(box.y[1]) }));
    const right = sx(v) > width * 0.7;
    svg.append(make("text", { x: sx(v) + (right ? -4 : 4), y: 34 + 13 * k, "text-anchor": right ? "end" : "start" }, name));
  });
  series.forEach((s, k) => {
    if (s.band) {
      const [a, b] = s.band.map((v) => Math.min(Math.max(v, box.x[0]), box.x[1]));
      svg.append(make("rect", { x: sx(a), width: Math.max(sx(b) - sx(a), 1), y: sy(box.y[1]), height: sy(box.y[0]) - sy(box.y[1]), fill: colour(k), opacity: 0.14 }));
    }
    const there = range(s.x.length).filter((i) => s.y[i] !== null && s.x[i] !== null);
    if (chart.kind === "points" && (s.names || []).length) {  // a series without names is a fitted line
      there.forEach((i) => {
        const name = (s.names || [])[i];
        const dot = make("circle", { cx: sx(s.x[i]), cy: sy(s.y[i]), r: 4.5, fill: colour(k), opacity: 0.85 });
        dot.append(make("title", {}, `${name ? name + ": " : ""}${digits(s.x[i])}, ${digits(s.y[i])}`));
        if ((s.low || []).length) svg.append(make("line", { x1: sx(s.x[i]), x2: sx(s.x[i]), y1: sy(s.low[i]), y2: sy(s.high[i]), stroke: colour(k), "stroke-width": 1.5 }));
        svg.append(dot);
        if (name && there.length <= 12) svg.append(make("text", { class: "name", x: sx(s.x[i]) + (sx(s.x[i]) > width * 0.72 ? -7 : 7), y: sy(s.y[i]) - 6, "text-anchor": sx(s.x[i]) > width * 0.72 ? "end" : "start" }, name));
      });
      return;
    }
    if ((s.low || []).length) {
      const up = there.map((i) => `${sx(s.x[i])},${sy(s.high[i])}`), down = there.map((i) => `${sx(s.x[i])},${sy(s.low[i])}`).reverse();
      svg.append(make("path", { d: `M${[...up, ...down].join("L")}Z`, fill: colour(k), opacity: 0.15 }));
    }
    const line = make("path", { d: `M${there.map((i) => `${sx(s.x[i]).toFixed(1)},${sy(s.y[i]).toFixed(1)}`).join("L")}`, fill: "none", stroke: colour(k), "stroke-width": 2, "stroke-dasharray": DASHES[k % DASHES.length] });
    line.append(make("title", {}, s.name));
    if (there.length) svg.append(line);
    if (s.dot) svg.append(make("circle", { cx: sx(s.dot[0]), cy: sy(s.dot[1]), r: 5, fill: colour(k), stroke: "var(--panel)", "stroke-width": 1.5 }));
  });
  return svg;
}

function rowsOfNames(chart) {
  // bars, or dots with intervals: names on the vertical axis, so that long ones can be read
  const series = chart.series, names = series[0].x, dots = chart.kind === "dots";
  const show = chart.share ? percent : digits, longest = Math.max(...names.map((n) => String(n).length));
  const left = Math.min(12 + 6.4 * Math.min(longest, 24), 170), thick = dots ? 9 : 11, step = Math.max(thick * series.length + 6, 17);
  const width = 460, top = 8, height = top + step * names.length + 40;
  const [low, high] = span(series.flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])]), !dots);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.title });
  const sx = (v) => left + (v - low) / (high - low) * (width - left - 52);
  for (const v of ticks(low, high, 4)) {
    svg.append(make("line", { class: "grid", x1: sx(v), x2: sx(v), y1: top, y2: height - 36 }));
    svg.append(make("text", { x: sx(v), y: height - 22, "text-anchor": "middle" }, show(v)));
  }
  svg.append(make("text", { x: (left + width - 52) / 2, y: height - 5, "text-anchor": "middle" }, chart.x));
  names.forEach((name, i) => {
    const y = top + step * i;
    const shown = String(name).length > 24 ? `${String(name).slice(0, 23)}…` : name;
    svg.append(make("text", { class: "name", x: left - 6, y: y + step / 2 + 2, "text-anchor": "end" }, shown, make("title", {}, name)));
    series.forEach((s, k) => {
      if (s.y[i] === null || s.y[i] === undefined) return;
      const middle = y + step / 2 + (k - (series.length - 1) / 2) * thick - 1, edge = (s.low || []).length;
      if (!dots) svg.append(make("rect", { x: sx(Math.max(low, Math.min(0, s.y[i]))), y: middle - thick / 2 + 1, width: Math.max(Math.abs(sx(s.y[i]) - sx(Math.max(low, 0))), 1), height: thick - 2, rx: 2, fill: colour(k) }, make("title", {}, `${name}, ${s.name}: ${show(s.y[i])}`)));
      if (edge && s.low[i] !== null) svg.append(make("line", { x1: sx(s.low[i]), x2: sx(s.high[i]), y1: middle, y2: middle, stroke: dots ? colour(k) : "var(--ink)", "stroke-width": dots ? 2 : 1 }));
      if (dots) svg.append(make("circle", { cx: sx(s.y[i]), cy: middle, r: 4, fill: colour(k) }, make("title", {}, `${name}, ${s.name}: ${show(s.y[i])}`)));
      if (series.length === 1) svg.append(make("text", { x: sx(edge ? Math.max(s.high[i], s.y[i]) : s.y[i]) + 6, y: middle + 4 }, show(s.y[i])));
    });
  });
  return svg;
}

function heat(chart) {
  // one series per row of the matrix; the number is written in each cell that is worth it
  const rows = chart.series, names = rows[0].x, show = (v) => (chart.share ? String(Math.round(100 * v)) : digits(Number(v.toPrecision(2))));
  const cell = Math.max(22, Math.min(46, 760 / names.length)), left = 150, top = 110;
  const width = left + cell * names.length + 60, height = top + cell * rows.length + 24;
  const most = Math.max(...rows.flatMap((s, i) => s.y.filter((v, j) => v !== null && s.name !== names[j])), 1e-9);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.title });
  const short = (name) => (name.length > 22 ? `${name.slice(0, 21)}…` : name);
  names.forEach((name, j) => svg.append(make("text", { class: "name", transform: `translate(${left + cell * (j + 0.6)},${top - 6}) rotate(-50)` }, short(name))));
  rows.forEach((s, i) => {
    svg.append(make("text", { class: "name", x: left - 6, y: top + cell * (i + 0.62), "text-anchor": "end" }, short(s.name)));
    s.y.forEach((v, j) => {
      if (v === null) return;
      const strength = s.name === names[j] && chart.share ? 0 : Math.min(Math.abs(v) / most, 1);
      svg.append(make("rect", { x: left + cell * j + 1, y: top + cell * i + 1, width: cell - 2, height: cell - 2, rx: 2, fill: `rgba(var(--heat), ${(0.04 + 0.8 * strength).toFixed(2)})` }, make("title", {}, `${s.name}, ${names[j]}: ${chart.share ? percent(v) : digits(v)}`)));
      if (strength > 0.06) svg.append(make("text", { x: left + cell * (j + 0.5), y: top + cell * (i + 0.62), "text-anchor": "middle", class: strength > 0.5 ? "name" : "" }, show(v)));
    });
  });
  svg.append(make("text", { x: left, y: height - 4 }, `${chart.y}; ${chart.x}`));
  return svg;
}

function chartRows(chart) {
  const heads = ["series", chart.x, chart.y, "low", "high", "name"], flat = chart.kind === "bars" || chart.kind === "dots";
  if (flat) [heads[1], heads[2]] = [chart.y || "name", chart.x];
  return [heads, ...chart.series.flatMap((s) => range(s.x.length).map((i) => [s.name, s.x[i], s.y[i], (s.low || [])[i], (s.high || [])[i], (s.names || [])[i]]))];
}

function drawChart(figure, chart) {
  const draw = { lines: plot, points: plot, bars: rowsOfNames, dots: rowsOfNames, heat }[chart.kind];
  if (!chart.series.length || !chart.series[0].x.length) return void figure.append(make("p", { class: "empty" }, "nothing to show"));
  if (chart.kind !== "heat" && chart.series.length > 1) figure.append(legend(chart.series, chart.kind === "lines"));
  figure.append(draw(chart));
  saveButton(figure, () => chartRows(chart));
}

// ---------- choices

function choose(name, options, picked, changed) {
  const select = make("select", { name });
  options.forEach((option, k) => select.append(make("option", { value: k }, option)));
  select.value = picked;
  select.addEventListener("change", changed);
  return { label: make("label", {}, name, select), get: () => Number(select.value), set: (k) => { select.value = k; } };
}

function steerCurves(figure, { data }) {
  // data: runs, labels, recalls, cuts; of each run and label: precision at each recall, f1 at each cut, threshold
  // [chosen, low, high], bins [mean probability, share, rows]
  const controls = make("div", { class: "controls" }), trio = make("div", { class: "trio" });
  const redraw = () => draw();
  const label = choose("label", data.labels, 0, redraw), first = choose("run", data.runs, 0, redraw);
  const second = choose("laid over it", ["no other run", ...data.runs], data.runs.length > 1 ? 2 : 0, redraw);
  controls.append(label.label, first.label, second.label);
  figure.append(controls, trio);
  let shown = [];
  function draw() {
    const l = label.get(), runs = [first.get(), second.get() - 1].filter((r, k, all) => r >= 0 && all.indexOf(r) === k);
    const of = (name) => runs.map((r) => ({ name: data.runs[r], of: data.of[r][l][name] }));
    const unit = [0, 1.02];
    const charts = [
      { kind: "lines", title: "Precision against recall", x: "recall", y: "precision", box: { x: unit, y: unit },
        series: of("precision").map((s) => ({ name: s.name, x: data.recalls, y: s.of })) },
      { kind: "lines", title: "F1 against the threshold", x: "threshold on the probability", y: "F1", box: { x: unit, y: unit }, at: [[0.5, "0.5"]],
        series: of("f1").map((s, k) => {
          const t = of("threshold")[k].of;
          const near = t ? data.cuts.reduce((best, v, i) => (Math.abs(v - t[0]) < Math.abs(data.cuts[best] - t[0]) ? i : best), 0) : 0;
          return { name: s.name, x: data.cuts, y: s.of, band: t && t[1] !== null ? [t[1], t[2]] : null, dot: t ? [t[0], s.of[near]] : null };
        }) },
      { kind: "lines", title: "Reliability", x: "mean probability of the rows", y: "share that has the label", box: { x: unit, y: unit }, diagonal: true,
        series: of("bins").map((s) => ({ name: s.name, x: s.of[0], y: s.of[1] })) },
    ];
    trio.replaceChildren(...charts.map((chart) => make("div", {}, make("h3", {}, chart.title), legend(chart.series, true), plot(chart))));
    shown = charts;
  }
  saveButton(figure, () => [["chart", "run", "x", "y"], ...shown.flatMap((chart) => chart.series.flatMap((s) => range(s.x.length).map((i) => [`${chart.title}, ${data.labels[label.get()]}`, s.name, s.x[i], s.y[i]])))]);
  draw();
}

function steerRows(figure, { data }) {
  // data: labels, kinds; rows: id, text, fold, loss, truth [l], decided [l], probs {l: p}
  const controls = make("div", { class: "controls" }), count = make("p", { class: "count" }), list = make("div");
  let limit = FIRST_ROWS;
  const redraw = () => { limit = FIRST_ROWS; draw(); };
  const label = choose("label", ["every label", ...data.labels], 0, redraw), kind = choose("kind", data.kinds, 0, redraw);
  const search = make("input", { type: "search", name: "text", placeholder: "words in the text or id" });
  search.addEventListener("input", redraw);
  if (data.labels.length) controls.append(label.label, kind.label);
  controls.append(make("label", {}, "text", search));
  const more = make("button", { class: "more", type: "button" }, "Show more");
  more.addEventListener("click", () => { limit += 4 * FIRST_ROWS; draw(); });
  figure.append(controls, count, list, more);
  const missed = (row) => row.truth.filter((l) => !row.decided.includes(l)), invented = (row) => row.decided.filter((l) => !row.truth.includes(l));
  const picks = () => {
    const l = label.get() - 1, k = kind.get(), words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    return data.rows.filter((row) => {
      const wrong = k === 1 ? missed(row) : k === 2 ? invented(row) : [...row.truth, ...row.decided];
      const fits = l < 0 ? k === 0 || wrong.length > 0 : wrong.includes(l);
      return fits && words.every((word) => row.text.toLowerCase().includes(word) || row.id.toLowerCase().includes(word));
    });
  };
  const chip = (row, l, what, sign) => make("span", { class: `chip ${what}`, title: what === "hit" ? "true and predicted" : what }, `${sign} ${data.labels[l]}${row.probs[l] === undefined ? "" : " " + percent(Number(row.probs[l].toPrecision(2)))}`);
  function draw() {
    const found = picks();
    count.textContent = `${found.length.toLocaleString("en")} of ${data.rows.length.toLocaleString("en")} rows, the largest loss first`;
    list.replaceChildren(...found.slice(0, limit).map((row) => {
      const chips = make("div", { class: "chips" });
      row.truth.filter((l) => row.decided.includes(l)).forEach((l) => chips.append(chip(row, l, "hit", "✓")));
      missed(row).forEach((l) => chips.append(chip(row, l, "missed", "missed:")));
      invented(row).forEach((l) => chips.append(chip(row, l, "invented", "invented:")));
      return make("article", {}, make("p", {}, row.text), chips, make("p", { class: "meta" }, `${row.id} · fold ${row.fold} · loss ${digits(row.loss)}${row.more ? " · " + row.more : ""}`));
    }));
    more.hidden = found.length <= limit;
  }
  saveButton(figure, () => [["id", "fold", "loss", "true", "predicted", "text"], ...picks().map((row) => [row.id, row.fold, row.loss, row.truth.map((l) => data.labels[l]).join("; "), row.decided.map((l) => data.labels[l]).join("; "), row.text])]);
  draw();
}

document.querySelectorAll("figure.table").forEach(steerTable);
for (const [id, block] of Object.entries(DATA)) {
  const figure = document.getElementById(id);
  if (block.kind === "curves") steerCurves(figure, block);
  else if (block.kind === "rows") steerRows(figure, block);
  else drawChart(figure, block);
}
