// Draws the charts that the page holds as JSON, with uPlot; sorts tables. Nothing is fetched.
"use strict";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const lineColor = (i) => color(`c${i % 12}`);
const short = (x) => x == null ? "–" : x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(2) : String(+x.toPrecision(4));

/** One row of x for all lines, and of each line its y there, null where it has none. */
function align(lines, of = (line) => line.y) {
  const xs = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
  const at = new Map(xs.map((x, i) => [x, i]));
  return [xs, ...lines.map((line) => {
    const row = Array(xs.length).fill(null);
    line.x.forEach((x, i) => { row[at.get(x)] = of(line)[i]; });
    return row;
  })];
}

function axes(extra = {}) {
  const look = () => ({ stroke: () => color("quiet"), grid: { stroke: () => color("line"), width: 1 }, ticks: { show: false }, font: "11.5px system-ui", gap: 4 });
  const numbers = (u, splits) => splits.map((v) => v == null ? "" : short(v));
  return [{ ...look(), size: 26, values: numbers, ...extra }, { ...look(), size: 54, values: numbers }];
}

/** A box beside the cursor that says what `words(u, index)` says, as rows of [colour, text]; the first is its head. */
function tip(figure, words) {
  const box = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
  figure.append(box);
  return (u) => {
    const rows = u.cursor.left >= 0 ? words(u, u.cursor.idx) : null;
    box.hidden = !rows;
    if (!rows) return;
    box.replaceChildren(...rows.map(([stroke, text], i) => {
      const row = document.createElement(i ? "span" : "b");
      row.textContent = text;
      row.style.setProperty("--color", stroke);
      return row;
    }));
    const plot = u.root.parentElement;
    const x = plot.offsetLeft + u.bbox.left / devicePixelRatio + u.cursor.left;
    box.style.top = `${plot.offsetTop + 8}px`;
    box.style.left = `${x + 16 + box.offsetWidth < figure.clientWidth ? x + 14 : Math.max(4, x - 14 - box.offsetWidth)}px`;
  };
}

function legend(figure, lines) {
  const rows = lines.length > 1 ? lines : [];
  figure.querySelector(".legend").replaceChildren(...rows.map((line) => {
    const row = document.createElement("span");
    row.textContent = line.name;
    row.style.setProperty("--color", lineColor(line.color));
    return row;
  }));
}

const STEPS = [0, 1, 2, 3, 4, 5, 6, 7, 8].flatMap((power) => [1, 2, 5].map((x) => x * 10 ** power)); // none between two

/** Metrics over steps, or means over a swept key with whiskers and a dot for each arm. */
function lines(figure, spec) {
  const data = align(spec.lines), effect = spec.kind === "effect";
  const names = new Map(spec.ticks ?? []);
  const ys = spec.lines.flatMap((l) => [...l.y, ...(l.dots ?? []).map((d) => d[1]), ...(l.low ?? []), ...(l.high ?? [])]).filter((y) => y != null);
  const least = Math.min(...ys), most = Math.max(...ys), room = (most - least || Math.abs(most) || 1) * 0.06;
  const inside = spec.ticks ? { splits: () => [...names.keys()], values: (u, splits) => splits.map((x) => names.get(x)) } : { incrs: STEPS };
  const [first, last] = [data[0][0], data[0].at(-1)], pad = last > first ? (effect ? (last - first) * 0.12 : 0) : 0.5;
  const say = (u, i) => i == null ? null : [[null, `${spec.x} ${names.get(data[0][i]) ?? data[0][i].toLocaleString("en")}`],
    ...spec.lines.map((l, k) => [lineColor(l.color), [l.name && spec.lines.length > 1 ? l.name + ":" : "", short(data[k + 1][i])].join(" ")])
      .filter((row, k) => data[k + 1][i] != null)];
  legend(figure, spec.lines);
  return {
    data,
    options: {
      scales: { x: { time: false, range: () => [first - pad, last + pad] },
                y: spec.log ? { distr: 3 } : { range: () => [least - room, most + room] } },
      axes: axes(inside),
      series: [{}, ...spec.lines.map((l) => effect ? { stroke: lineColor(l.color), paths: () => null, points: { show: false } }
        : { stroke: lineColor(l.color), width: 1.5, spanGaps: true, points: { show: l.x.length < 2, size: 5, fill: lineColor(l.color) } })],
      hooks: { setCursor: [tip(figure, say)], draw: effect ? [(u) => effects(u, spec.lines)] : [] },
    },
    cursor: effect ? { points: { show: false } } : {},
  };
}

/** Lines of means with whiskers, and a dot for each arm; lines stand a little beside each other, so that none hides another. */
function effects(u, all) {
  const ctx = u.ctx, px = devicePixelRatio;
  all.forEach((line, k) => {
    const aside = (k - (all.length - 1) / 2) * Math.min(7, 40 / all.length) * px;
    const left = (x) => u.valToPos(x, "x", true) + aside, top = (y) => u.valToPos(y, "y", true);
    const disc = (x, y, radius) => { ctx.beginPath(); ctx.arc(left(x), top(y), radius * px, 0, 7); ctx.fill(); };
    ctx.strokeStyle = ctx.fillStyle = lineColor(line.color);
    ctx.lineWidth = 1.5 * px;
    ctx.beginPath();
    line.x.forEach((x, i) => ctx.lineTo(left(x), top(line.y[i])));
    line.x.forEach((x, i) => {
      if (line.low[i] == null) return;
      ctx.moveTo(left(x), top(line.low[i])); ctx.lineTo(left(x), top(line.high[i]));
      for (const end of [line.low[i], line.high[i]]) { ctx.moveTo(left(x) - 4 * px, top(end)); ctx.lineTo(left(x) + 4 * px, top(end)); }
    });
    ctx.stroke();
    line.x.forEach((x, i) => disc(x, line.y[i], 4));
    ctx.globalAlpha = 0.45;
    line.dots.forEach(([x, y]) => disc(x, y, 2.5));
    ctx.globalAlpha = 1;
  });
}

/** An axis for each key, a line for each setting, brighter the better. */
function parallel(figure, spec) {
  const xs = spec.axes.map((_, i) => i), data = [xs, ...spec.lines.map((l) => l.y)];
  const stroke = (l) => { const [a, b] = [color("c0"), color("c1")]; return `color-mix(in oklab, ${b} ${Math.round(100 * l.good)}%, ${a})`; };
  let near = null;
  const labels = (u) => {
    const ctx = u.ctx, px = devicePixelRatio;
    ctx.font = `${11.5 * px}px system-ui`;
    spec.axes.forEach((axis, i) => {
      const x = u.valToPos(i, "x", true), last = i === spec.axes.length - 1;
      ctx.strokeStyle = color("line");
      ctx.lineWidth = px;
      ctx.beginPath(); ctx.moveTo(x, u.bbox.top); ctx.lineTo(x, u.bbox.top + u.bbox.height); ctx.stroke();
      ctx.fillStyle = color("ink");
      ctx.textAlign = last ? "right" : "left";
      ctx.textBaseline = "bottom";
      ctx.strokeStyle = color("card");
      ctx.lineWidth = 4 * px;
      for (const write of ["strokeText", "fillText"]) { // a rim, so that words can be read across lines
        axis.ticks.forEach(([y, text]) => ctx[write](text, x + (last ? -5 : 5) * px, u.valToPos(y, "y", true) - 2 * px));
      }
    });
  };
  const say = () => near == null ? null : [[null, spec.axes.slice(0, -1).map((a) => a.name).join(", ")],
    [stroke(spec.lines[near - 1]), `${spec.lines[near - 1].name}: ${short(spec.lines[near - 1].value)}`]];
  const show = tip(figure, say);
  return {
    data,
    options: {
      height: 320,
      scales: { x: { time: false, range: () => [-0.03, xs.length - 0.97] }, y: { range: () => [-0.06, 1.12] } },
      axes: [{ ...axes()[0], splits: () => xs, values: () => spec.axes.map((a) => a.name), grid: { show: false } }, { show: false }],
      series: [{}, ...spec.lines.map((l) => ({ stroke: stroke(l), width: 1.5, points: { show: false } }))],
      focus: { alpha: 0.15 },
      padding: [0, 40, 0, 40],
      hooks: { draw: [labels], setSeries: [(u, i) => { near = i; show(u); }], setCursor: [show] },
    },
    cursor: { focus: { prox: 24 } },
  };
}

const KINDS = { lines, effect: lines, parallel };

function draw(figure) {
  const spec = JSON.parse(figure.querySelector("script").textContent), place = figure.querySelector(".plot");
  place.replaceChildren();
  figure.querySelector(".tip")?.remove();
  const { data, options, cursor } = KINDS[spec.kind](figure, spec);
  const size = () => ({ width: place.clientWidth, height: options.height ?? 220 });
  const plot = new uPlot({ ...size(), legend: { show: false }, cursor: { y: false, ...cursor }, ...options }, data, place);
  const watch = new ResizeObserver(() => plot.width !== place.clientWidth && plot.setSize(size()));
  watch.observe(place);
  figure.redraw = () => { watch.disconnect(); plot.destroy(); draw(figure); };
  figure.dataset.drawn = "yes";
}

/** Rows by a column: numbers by size, words by letters; empty cells last either way. */
function sort(head) {
  const table = head.closest("table"), body = table.tBodies[0], at = head.cellIndex;
  const order = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const value = (row) => row.cells[at].dataset.value ?? row.cells[at].textContent.trim();
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    return order * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
  });
  table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
  body.append(...rows);
}

document.querySelectorAll(".chart").forEach(draw);
document.querySelectorAll(".sortable thead th").forEach((head) => head.addEventListener("click", () => sort(head)));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.querySelectorAll(".chart").forEach((figure) => figure.redraw()));
