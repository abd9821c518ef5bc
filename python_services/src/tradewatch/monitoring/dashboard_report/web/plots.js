"use strict";
/* Panels drawn from their data. Text from outside enters the page as text nodes only. */

const SVG = "http://www.w3.org/2000/svg";
const AXIS = { stroke: "#7c879b", grid: { stroke: "#252c3b", width: 1 }, ticks: { stroke: "#252c3b", width: 1, size: 4 }, font: "11px system-ui, sans-serif" };

function make(tag, className, ...children) {
  const found = document.createElement(tag);
  if (className) found.className = className;
  found.append(...children.filter((child) => child !== null && child !== undefined));
  return found;
}

function svg(tag, attributes, ...children) {
  const found = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
}

/* ---- links ---- */

function fillLink(template, labels, context) {
  return String(template).replace(/\$\{([^}]+)\}|\$(\w+)/g, (whole, inner, bare) => {
    const name = inner || bare;
    let match = /^__(?:field\.labels|data\.fields)[.[]"?([^"\]]+)"?\]?$/.exec(name);
    if (match) return encodeURIComponent(labels[match[1]] ?? "");
    if (name === "__url_time_range") return `from=${encodeURIComponent(context.from)}&to=${encodeURIComponent(context.to)}`;
    if (name === "__from") return encodeURIComponent(context.from);
    if (name === "__to") return encodeURIComponent(context.to);
    match = /^(\w+)(?::(\w+))?$/.exec(name);
    const values = match && context.variables[match[1]];
    if (!values) return name === "__all_variables" ? context.allVariables : "";
    if (match[2] === "queryparam") return values.map((value) => `var-${match[1]}=${encodeURIComponent(value)}`).join("&");
    return encodeURIComponent(values.join(","));
  });
}

/* The address if it leads to a dashboard here or to another site over HTTP; nothing else becomes a link. */
function safeAddress(address) {
  if (/^\/d\/[\w-]+([/?#]|$)/.test(address)) return address;
  return /^https?:\/\/[^/]/i.test(address) ? address : null;
}

function anchor(text, address, context) {
  const safe = safeAddress(address);
  if (!safe) return null;
  const found = make("a", "", text);
  if (safe.startsWith("/")) context.inside(found, safe);
  else {
    found.href = safe;
    found.target = "_blank";
    found.rel = "noopener noreferrer";
  }
  return found;
}

function linksOf(links, labels, context) {
  return (links || []).map((link) => anchor(link.title || link.url || "link", fillLink(link.url || "", labels, context), context)).filter(Boolean);
}

/* `element` opens a small menu of the links when it is clicked. */
function linked(element, links, labels, context) {
  if (!linksOf(links, labels, context).length) return element;
  element.classList.add("linked");
  element.tabIndex = 0;
  const open = (event) => {
    event.stopPropagation();
    const at = element.getBoundingClientRect();
    context.menu(linksOf(links, labels, context), at.left, at.bottom);
  };
  element.addEventListener("click", open);
  element.addEventListener("keydown", (event) => { if (event.key === "Enter") open(event); });
  return element;
}

/* ---- timeseries ---- */

function spanOf(look, values) {
  const filled = values.filter((value) => value !== null);
  return [look.min ?? Math.min(0, ...filled), look.max ?? Math.max(1e-9, ...filled)];
}

function times(data) {
  return Array.from({ length: Math.round((data.end - data.start) / data.step) + 1 }, (_, index) => data.start + index * data.step);
}

function drawTimeseries(box, panel, data, context) {
  const grid = times(data);
  const raw = data.series.map((series) => (series.values.length === grid.length ? series.values : grid.map((_, index) => (index === grid.length - 1 ? series.values[0] : null))));
  const looks = data.series.map((series) => lookOf(panel, series.name, series.ref));
  const stacked = looks.some((look) => ((look.custom.stacking || {}).mode || "none") !== "none");
  const values = stacked ? accumulated(raw) : raw;
  const key = JSON.stringify([data.series.map((series) => series.name), box.clientWidth > 0]);
  const before = box.plot;
  if (before && before.key === key && before.root.isConnected) {
    Object.assign(before, { data, raw });
    before.chart.setData([grid, ...values]);
    return;
  }
  if (before) before.chart.destroy();
  const root = make("div", "plot");
  const legend = make("div", "legend");
  box.replaceChildren(root, legend);
  const plot = { key, root, data, raw, hidden: new Set(before ? before.hidden : []) };
  const tones = looks.map((look, index) => seriesColour(index, look));
  const main = lookOf(panel, "", "");
  const bars = main.custom.drawStyle === "bars";
  const fill = (main.custom.fillOpacity || 0) / 100;
  const series = data.series.map((item, index) => ({
    label: item.name,
    show: !plot.hidden.has(item.name),
    stroke: tones[index],
    width: Math.max(1.25, looks[index].custom.lineWidth ?? 1.25),
    fill: fill && !stacked ? withAlpha(tones[index], Math.min(fill, 0.25)) : stacked && index === 0 ? withAlpha(tones[0], fill || 0.3) : undefined,
    spanGaps: looks[index].custom.spanNulls === true,
    paths: bars ? uPlot.paths.bars({ size: [0.8, 24] }) : undefined,
    points: { show: !bars, size: 4, fill: tones[index], filter: (chart, place) => lonely(chart.data[place]) },
  }));
  const bands = stacked ? data.series.slice(1).map((_, index) => ({ series: [index + 2, index + 1], fill: withAlpha(tones[index + 1], fill || 0.3) })) : [];
  const unit = (chart, ticks) => ticks.map((tick) => (tick === null ? "" : formatUnit(tick, main.unit, tickDecimals(ticks, main))));
  plot.chart = new uPlot({
    width: Math.max(120, root.clientWidth),
    height: Math.max(60, root.clientHeight),
    series: [{}, ...series],
    bands,
    axes: [{ ...AXIS, space: 64, values: timeTicks, size: 26 }, { ...AXIS, values: unit, size: axisWidth, gap: 4, space: 28 }],
    scales: { x: { time: true, range: () => [plot.data.start, plot.data.end] }, y: { range: (chart, low, high) => yRange(low, high, main) } },
    legend: { show: false },
    cursor: { sync: { key: "tradewatch" }, drag: { x: true, y: false, setScale: false }, points: { size: 5 }, y: false },
    hooks: {
      draw: [(chart) => drawMarks(chart, context.marks()), (chart) => drawThresholds(chart, main)],
      setSelect: [(chart) => {
        if (chart.select.width < 4) return;
        const from = chart.posToVal(chart.select.left, "x");
        const to = chart.posToVal(chart.select.left + chart.select.width, "x");
        chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        if (to - from >= 60) context.zoom(from, to);
      }],
      setCursor: [(chart) => hover(chart, plot, tones, looks, context)],
    },
  }, [grid, ...values], root);
  box.plot = plot;
  data.series.forEach((item, index) => legend.append(legendItem(item, index, tones[index], looks[index], plot, context)));
  legend.hidden = ((panel.options || {}).legend || {}).showLegend === false || !data.series.length;
  resize(box);
}

/* The time of day; the date at midnight, and everywhere where ticks are days apart. */
function timeTicks(chart, ticks) {
  const apart = ticks.length > 1 ? ticks[1] - ticks[0] : 0;
  return ticks.map((tick) => {
    const text = clock(tick * 1000, true);
    if (apart >= 86400 || text.endsWith("00:00:00")) return text.slice(5, 10);
    return apart && apart < 60 ? text.slice(11) : text.slice(11, 16);
  });
}

function legendItem(item, index, tone, look, plot, context) {
  const mark = make("i", "swatch");
  mark.style.background = tone;
  const toggle = make("button", "legend-item", mark, item.name || "value");
  toggle.title = item.name;
  toggle.setAttribute("aria-pressed", String(!plot.hidden.has(item.name)));
  toggle.addEventListener("click", () => {
    const hide = !plot.hidden.has(item.name);
    if (hide) plot.hidden.add(item.name);
    else plot.hidden.delete(item.name);
    toggle.setAttribute("aria-pressed", String(!hide));
    plot.chart.setSeries(index + 1, { show: !hide });
  });
  if (!(look.links || []).length) return toggle;
  const more = linked(make("span", "more", "↗"), look.links, item.labels, context);
  more.title = `Links of ${item.name}`;
  return make("span", "legend-pair", toggle, more);
}

function resize(box) {
  const plot = box.plot;
  if (!plot || !plot.root.clientWidth) return;
  plot.chart.setSize({ width: plot.root.clientWidth, height: Math.max(60, plot.root.clientHeight) });
}

function accumulated(rows) {
  const sums = [];
  for (const row of rows) sums.push(row.map((value, index) => (sums.length ? sums[sums.length - 1][index] : 0) + (value ?? 0)));
  return sums;
}

function lonely(values) {
  const found = [];
  for (let index = 0; index < values.length; index += 1) {
    if (values[index] !== null && (values[index - 1] ?? null) === null && (values[index + 1] ?? null) === null) found.push(index);
  }
  return found;
}

function yRange(low, high, look) {
  if (low === null || high === null) return [look.min ?? 0, look.max ?? 1];
  let from = low;
  let to = high;
  if (from === to) {
    const room = Math.abs(from) * 0.1 || 1;
    from = from >= 0 && from - room < 0 ? 0 : from - room;
    to += room;
  } else {
    const room = (to - from) * 0.08;
    from = from >= 0 && from < (to - from) * 0.6 ? 0 : from - room;
    to += room;
  }
  return [look.min ?? from, Math.max(look.max ?? to, (look.min ?? from) + 1e-9)];
}

function tickDecimals(ticks, look) {
  return ticks.length > 1 && ["none", "percent"].includes(look.unit) ? Math.max(0, Math.min(6, -Math.floor(Math.log10(Math.abs(ticks[1] - ticks[0]) || 1)))) : undefined;
}

function axisWidth(chart, labels) {
  const longest = (labels || []).reduce((most, label) => Math.max(most, label.length), 0);
  return Math.max(34, 14 + longest * 6.2);
}

function drawMarks(chart, marks) {
  const { ctx, bbox } = chart;
  ctx.save();
  for (const mark of marks) {
    const from = chart.valToPos(mark.start, "x", true);
    const to = chart.valToPos(mark.end, "x", true);
    if (to < bbox.left || from > bbox.left + bbox.width) continue;
    const tone = colour(mark.colour, COLOURS.blue);
    const left = Math.max(from, bbox.left);
    ctx.fillStyle = withAlpha(tone, 0.06);
    ctx.fillRect(left, bbox.top, Math.min(to, bbox.left + bbox.width) - left, bbox.height);
    ctx.strokeStyle = withAlpha(tone, 0.8);
    ctx.setLineDash([4, 4]);
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

function drawThresholds(chart, look) {
  const style = (look.custom.thresholdsStyle || {}).mode || "off";
  if (style === "off") return;
  const { ctx, bbox } = chart;
  ctx.save();
  ctx.setLineDash(style.includes("dashed") ? [6, 5] : []);
  for (const step of (look.thresholds || {}).steps || []) {
    if (step.value === null || step.value === undefined) continue;
    const at = chart.valToPos(step.value, "y", true);
    if (at < bbox.top || at > bbox.top + bbox.height) continue;
    ctx.strokeStyle = withAlpha(colour(step.color, COLOURS.red), 0.7);
    ctx.beginPath();
    ctx.moveTo(bbox.left, at);
    ctx.lineTo(bbox.left + bbox.width, at);
    ctx.stroke();
  }
  ctx.restore();
}

function hover(chart, plot, tones, looks, context) {
  const { left, idx, event } = chart.cursor;
  if (!chart.root.matches(":hover") || idx === null || idx === undefined || left < 0) {
    if (chart.root.matches(":hover") || context.tip.owner === chart) context.tip.hide();
    return;
  }
  const at = chart.data[0][idx];
  const rows = plot.raw
    .map((values, index) => ({ value: values[idx], index }))
    .filter((row) => row.value !== null && row.value !== undefined && chart.series[row.index + 1].show)
    .sort((one, other) => other.value - one.value);
  const lines = rows.slice(0, 14).map(({ value, index }) => {
    const mark = make("i", "swatch");
    mark.style.background = tones[index];
    return make("div", "tip-row", mark, make("span", "tip-name", plot.data.series[index].name), make("b", "", shown(value, looks[index]).text));
  });
  if (rows.length > 14) lines.push(make("div", "dim", `and ${rows.length - 14} more`));
  for (const mark of context.marks()) {
    if (at >= mark.start - plot.data.step && at <= mark.end + plot.data.step) lines.push(make("div", "tip-mark", `${mark.title}${mark.text ? `: ${mark.text}` : ""}`));
  }
  context.tip.show(chart, event, [make("div", "dim", clock(at * 1000, true)), ...lines]);
}

/* ---- single values ---- */

function singles(panel, data) {
  const calculation = (((panel.options || {}).reduceOptions || {}).calcs || ["lastNotNull"])[0];
  return data.series.map((series) => {
    const look = lookOf(panel, series.name, series.ref);
    const value = reduced(series.values, calculation);
    return { series, look, value, span: spanOf(look, series.values) };
  });
}

function drawStat(box, panel, data, context) {
  const found = singles(panel, data);
  const options = panel.options || {};
  if (!found.length) {
    box.replaceChildren(make("div", "tiles", tile({ text: lookOf(panel, "", "").noValue || "no data", colour: COLOURS.gray }, "", "value")));
    return;
  }
  const tiles = found.map(({ series, look, value, span }) => {
    const name = look.displayName || (found.length > 1 || options.textMode === "value_and_name" ? series.name : "");
    const made = tile(shown(value, look, span), options.textMode === "value" ? "" : name, options.colorMode);
    if (options.graphMode === "area" && series.values.length > 1) made.append(sparkline(series.values, shown(value, look, span).colour));
    return linked(made, look.links, series.labels, context);
  });
  const holder = make("div", "tiles", ...tiles);
  if (tiles.length > 6) holder.classList.add("many");
  box.replaceChildren(holder);
}

function tile(value, name, mode) {
  const made = make("div", "tile", name ? make("div", "tile-name", name) : null, make("div", "tile-value", value.text));
  made.title = name ? `${name}: ${value.text}` : value.text;
  if (mode === "none") return made;
  made.lastChild.style.color = value.colour;
  if (mode === "background") {
    made.style.background = withAlpha(value.colour, 0.14);
    made.style.borderColor = withAlpha(value.colour, 0.45);
  }
  return made;
}

function sparkline(values, tone) {
  const filled = values.map((value, index) => [index, value]).filter(([, value]) => value !== null);
  const [low, high] = [Math.min(...filled.map(([, value]) => value)), Math.max(...filled.map(([, value]) => value))];
  const points = filled.map(([index, value]) => `${(index / (values.length - 1)) * 100},${28 - ((value - low) / (high - low || 1)) * 26}`).join(" ");
  return svg("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", class: "sparkline" }, svg("polyline", { points, fill: "none", stroke: tone, "stroke-width": "1.5", "vector-effect": "non-scaling-stroke" }));
}

function drawGauge(box, panel, data, context) {
  box.replaceChildren(make("div", "tiles", ...singles(panel, data).map(({ series, look, value, span }) => {
    const text = shown(value, look, span);
    const share = value === null ? 0 : Math.max(0, Math.min(1, (value - span[0]) / (span[1] - span[0] || 1)));
    const arc = (part) => ({ d: "M10 52 A42 42 0 0 1 94 52", fill: "none", "stroke-width": "11", "stroke-linecap": "round", pathLength: "100", "stroke-dasharray": `${part * 100} 200` });
    const picture = svg("svg", { viewBox: "0 0 104 60", class: "gauge" }, svg("path", { ...arc(1), stroke: "#2a3243" }));
    if (share > 0) picture.append(svg("path", { ...arc(share), stroke: text.colour }));
    const made = make("div", "tile", picture, make("div", "tile-value", text.text), make("div", "tile-name", look.displayName || series.name));
    made.querySelector(".tile-value").style.color = text.colour;
    return linked(made, look.links, series.labels, context);
  })));
}

function drawBars(box, panel, data, context) {
  const found = singles(panel, data);
  const most = Math.max(1e-9, ...found.map(({ value }) => value ?? 0));
  box.replaceChildren(make("div", "bars", ...found.map(({ series, look, value, span }) => {
    const text = shown(value, look, span);
    const [low, high] = [look.min ?? 0, look.max ?? most];
    const bar = make("div", "bar");
    bar.style.width = `${value === null ? 0 : Math.max(0, Math.min(1, (value - low) / (high - low || 1))) * 100}%`;
    bar.style.background = text.colour;
    return linked(make("div", "bar-row", make("div", "bar-name", look.displayName || series.name), make("div", "bar-track", bar), make("div", "bar-value", text.text)), look.links, series.labels, context);
  })));
}

/* ---- states and heat over time ---- */

function drawTimeline(box, panel, data, context) {
  const grid = times(data);
  const span = data.end - data.start || 1;
  const rows = data.series.map((series) => {
    const look = lookOf(panel, series.name, series.ref);
    const band = make("div", "band");
    let begin = 0;
    for (let index = 1; index <= series.values.length; index += 1) {
      const value = series.values[begin];
      const text = value === null ? null : shown(value, look);
      const next = index < series.values.length && series.values[index] !== null ? shown(series.values[index], look) : null;
      if (index < series.values.length && (text && next ? text.text === next.text && text.colour === next.colour : series.values[index] === value)) continue;
      if (text) {
        const part = make("div", "state");
        part.style.left = `${(begin * data.step * 100) / span}%`;
        part.style.width = `${(Math.min(index, grid.length - 1) - begin) * data.step * 100 / span}%`;
        part.style.background = text.colour;
        part.title = `${series.name}: ${text.text}\n${clock(grid[begin] * 1000, true)} to ${clock(grid[Math.min(index, grid.length - 1)] * 1000, true)}`;
        band.append(part);
      }
      begin = index;
    }
    const name = make("div", "band-name", series.name);
    name.title = series.name;
    return make("div", "band-row", linked(name, look.links, series.labels, context), band);
  });
  const axis = make("div", "band-row axis", make("div", "band-name"), make("div", "band-times", ...[0, 0.25, 0.5, 0.75, 1].map((part) => make("span", "", clock((data.start + span * part) * 1000).slice(0, 5)))));
  keepScroll(box, make("div", "timeline scroll", ...rows, axis));
}

function drawHeatmap(box, panel, data, context) {
  const canvas = make("canvas", "heat");
  box.replaceChildren(canvas);
  const paint = () => {
    const [width, height] = [box.clientWidth, box.clientHeight];
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const used = data.series.filter((series) => series.values.some((value) => value));
    const [left, bottom] = [58, 20];
    const area = { width: width - left - 6, height: height - bottom - 4 };
    const columns = Math.round((data.end - data.start) / data.step) + 1;
    const most = Math.max(1e-12, ...used.flatMap((series) => series.values.map((value) => value || 0)));
    const unit = ((panel.options || {}).yAxis || {}).unit || lookOf(panel, "", "").unit;
    const label = (series) => (Number.isFinite(Number(series.name)) ? `≤ ${formatUnit(Number(series.name), unit)}` : series.name === "+Inf" ? "more" : series.name);
    const [cellWidth, cellHeight] = [area.width / columns, area.height / (used.length || 1)];
    pen.font = AXIS.font;
    pen.textBaseline = "middle";
    const every = Math.ceil(14 / cellHeight);
    used.forEach((series, row) => {
      const top = 4 + area.height - (row + 1) * cellHeight;
      series.values.forEach((value, column) => {
        if (!value) return;
        const heat = Math.sqrt(value / most);
        pen.fillStyle = `hsl(${216 - 8 * heat} ${45 + 35 * heat}% ${18 + 50 * heat}%)`;
        pen.fillRect(left + column * cellWidth, top + 0.5, cellWidth + (cellWidth < 6 ? 0.5 : -1), Math.max(1, cellHeight - 1));
      });
      pen.fillStyle = AXIS.stroke;
      pen.textAlign = "right";
      if (row % every === 0) pen.fillText(label(series).slice(0, 11), left - 5, top + cellHeight / 2);
    });
    pen.fillStyle = AXIS.stroke;
    pen.textAlign = "center";
    for (const part of [0.05, 0.5, 0.95]) pen.fillText(clock((data.start + (data.end - data.start) * part) * 1000).slice(0, 5), left + area.width * part, height - 8);
    if (!used.length) pen.fillText("nothing counted in this time", left + area.width / 2, height / 2);
    canvas.onmousemove = (event) => {
      const column = Math.floor((event.offsetX - left) / cellWidth);
      const row = Math.floor((4 + area.height - event.offsetY) / cellHeight);
      const series = used[row];
      if (!series || column < 0 || column >= columns) return context.tip.hide();
      const at = (data.start + column * data.step) * 1000;
      return context.tip.show(canvas, event, [make("div", "dim", clock(at, true)), make("div", "tip-row", make("span", "tip-name", label(series)), make("b", "", plainNumber(series.values[column] ?? 0)))]);
    };
    canvas.onmouseleave = () => context.tip.hide();
  };
  box.repaint = paint;
  paint();
}

/* ---- tables, logs, text ---- */

function keepScroll(box, fresh) {
  const old = box.querySelector(".scroll");
  const [top, left] = old ? [old.scrollTop, old.scrollLeft] : [0, 0];
  box.replaceChildren(fresh);
  fresh.scrollTop = top;
  fresh.scrollLeft = left;
}

function drawTable(box, panel, data, context) {
  const { columns, rows, labels } = data.table;
  const first = ((panel.options || {}).sortBy || [])[0];
  const wanted = box.order || (first ? { column: first.displayName, falling: Boolean(first.desc) } : null);
  const place = wanted ? columns.indexOf(wanted.column) : -1;
  const order = rows.map((_, index) => index);
  if (place >= 0) {
    order.sort((one, other) => {
      const [a, b] = [rows[one][place], rows[other][place]];
      if (a === null || b === null) return (a === null) - (b === null);
      const by = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
      return wanted.falling ? -by : by;
    });
  }
  const looks = columns.map((name) => lookOf(panel, name, name.startsWith("Value #") ? name.slice(7) : ""));
  const head = make("tr", "", ...columns.map((name, index) => {
    const cell = make("th", rows.some((row) => typeof row[index] === "number") ? "number" : "", make("button", "", looks[index].displayName || name, index === place ? (wanted.falling ? " ↓" : " ↑") : ""));
    cell.firstChild.addEventListener("click", () => {
      box.order = { column: name, falling: index === place ? !wanted.falling : typeof (rows[0] || [])[index] === "number" };
      drawTable(box, panel, data, context);
    });
    return cell;
  }));
  const body = order.map((index) => {
    const fields = { ...Object.fromEntries(columns.map((name, column) => [name, rows[index][column]])), ...labels[index] };
    return make("tr", "", ...columns.map((name, column) => tableCell(rows[index][column], name, looks[column], fields, context)));
  });
  const empty = rows.length ? null : make("div", "empty", lookOf(panel, "", "").noValue || "no rows");
  keepScroll(box, make("div", "scroll", make("table", "", make("thead", "", head), make("tbody", "", ...body)), empty));
}

function tableCell(value, name, look, fields, context) {
  const numeric = typeof value === "number";
  const text = value === null ? { text: look.noValue || "", colour: COLOURS.gray } : name === "Time" && numeric ? { text: clock(value, true) } : shown(value, look);
  const inner = make("span", "", text.text);
  const kind = (look.custom.cellOptions || {}).type || look.custom.displayMode;
  const cell = make("td", numeric ? "number" : "", linked(inner, look.links, fields, context));
  if (kind === "color-text" && text.colour) inner.style.color = text.colour;
  if (kind === "color-background" && text.colour) cell.style.background = withAlpha(text.colour, 0.2);
  return cell;
}

const LEVELS = { critical: "error", fatal: "error", error: "error", err: "error", warning: "warning", warn: "warning", info: "info", notice: "info", debug: "debug", trace: "debug" };

function levelOf(entry) {
  const named = entry.labels.level || entry.labels.detected_level || entry.labels.severity || (/"(?:level|severity)":\s*"(\w+)"/.exec(entry.line) || [])[1] || "";
  return LEVELS[named.toLowerCase()] || "other";
}

/* The lines of our services are JSON: what happened first, then the rest as name=value. */
function readable(line) {
  let fields = null;
  if (line.startsWith("{")) {
    try {
      fields = JSON.parse(line);
    } catch { /* not JSON: shown as it is */ }
  }
  const event = fields && (fields.event || fields.message || fields.msg);
  if (typeof event !== "string") return [line, ""];
  const rest = Object.entries(fields).filter(([name]) => !["event", "message", "msg", "timestamp", "time", "ts", "level", "severity", "service"].includes(name));
  return [event, rest.map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(" ")];
}

function drawLogs(box, panel, data) {
  if (!box.logs) {
    const search = make("input", "search");
    search.type = "search";
    search.placeholder = "Search these lines";
    search.setAttribute("aria-label", "Search these lines");
    box.logs = { search, off: new Set(), open: new Set() };
    search.addEventListener("input", () => listLogs(box));
  }
  box.logs.lines = data.lines.map((entry) => ({ ...entry, level: levelOf(entry), read: readable(entry.line), key: entry.time + entry.line }));
  listLogs(box);
}

function listLogs(box) {
  const state = box.logs;
  const counts = {};
  for (const entry of state.lines) counts[entry.level] = (counts[entry.level] || 0) + 1;
  const chips = ["error", "warning", "info", "debug", "other"].filter((level) => counts[level]).map((level) => {
    const chip = make("button", `chip ${level}`, `${level} ${counts[level]}`);
    chip.setAttribute("aria-pressed", String(!state.off.has(level)));
    chip.addEventListener("click", () => {
      if (!state.off.delete(level)) state.off.add(level);
      listLogs(box);
    });
    return chip;
  });
  const wanted = state.search.value.toLowerCase();
  const lines = state.lines.filter((entry) => !state.off.has(entry.level) && (!wanted || entry.line.toLowerCase().includes(wanted) || Object.values(entry.labels).some((label) => label.toLowerCase().includes(wanted))));
  const list = make("div", "log-lines scroll", ...lines.map((entry) => logLine(entry, state)));
  if (!lines.length) list.append(make("div", "empty", state.lines.length ? "no line matches" : "no lines in this time"));
  if (!state.root || !state.root.isConnected) {
    state.counts = make("div", "chips");
    state.root = make("div", "logs", make("div", "log-bar", state.search, state.counts), list);
    box.replaceChildren(state.root);
  } else {
    const old = state.root.lastChild;
    const top = old.scrollTop;
    old.replaceWith(list);
    list.scrollTop = top;
  }
  state.counts.replaceChildren(...chips);
}

function logLine(entry, state) {
  const milliseconds = Number(BigInt(entry.time) / 1000000n);
  const [event, rest] = entry.read;
  const head = make("summary", "", make("time", "", clock(milliseconds)), make("span", "log-service", entry.labels.service || entry.labels.pod || entry.labels.job || ""), make("span", "log-event", event), rest ? make("span", "log-rest", rest) : null);
  const found = make("details", `log-line ${entry.level}`, head);
  const unfold = () => {
    if (found.childElementCount > 1) return;
    const labels = Object.entries(entry.labels).map(([name, value]) => make("div", "", make("span", "dim", `${name} `), value));
    found.append(make("div", "log-details", make("div", "dim", clock(milliseconds, true)), make("pre", "", entry.line), ...labels));
  };
  found.addEventListener("toggle", () => {
    if (found.open) {
      unfold();
      state.open.add(entry.key);
    } else state.open.delete(entry.key);
  });
  if (state.open.has(entry.key)) {
    unfold();
    found.open = true;
  }
  return found;
}

/* A little Markdown: headings, lists, bold, code and links; anything else stays text, HTML too. */
function drawText(box, panel, data, context) {
  const holder = make("div", "text scroll");
  let list = null;
  for (const line of String(data.content ?? (panel.options || {}).content ?? "").split("\n")) {
    const heading = /^(#{1,4})\s+(.*)$/.exec(line);
    const item = /^\s*[-*]\s+(.*)$/.exec(line);
    if (item) {
      if (!list) holder.append((list = make("ul", "")));
      list.append(make("li", "", ...inline(item[1], context)));
      continue;
    }
    list = null;
    if (heading) holder.append(make(`h${heading[1].length + 2}`, "", ...inline(heading[2], context)));
    else if (line.trim()) holder.append(make("p", "", ...inline(line, context)));
  }
  box.replaceChildren(holder);
}

function inline(text, context) {
  return text.split(/(\*\*[^*]+\*\*|`[^`]+`|\[[^\]]+\]\([^)\s]+\))/).filter(Boolean).map((part) => {
    if (part.startsWith("**")) return make("b", "", part.slice(2, -2));
    if (part.startsWith("`")) return make("code", "", part.slice(1, -1));
    const link = /^\[([^\]]+)\]\(([^)\s]+)\)$/.exec(part);
    return (link && anchor(link[1], link[2], context)) || part;
  });
}

const DRAW = {
  timeseries: drawTimeseries, graph: drawTimeseries, barchart: drawBars, stat: drawStat, gauge: drawGauge, bargauge: drawBars, table: drawTable,
  logs: drawLogs, "state-timeline": drawTimeline, "status-history": drawTimeline, heatmap: drawHeatmap, text: drawText,
};
