"use strict";
/* Panels drawn from their data. Text from outside enters the page as text nodes only. */

const SVG = "http://www.w3.org/2000/svg";

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
    // The dashboard's own text, which may be the beginning of an address.
    if (match && Object.hasOwn(context.constants, match[1])) return context.constants[match[1]];
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

/* Where a trace's id leads, by the links of the panel's field of that name. A report has no other place to go to. */
function traceLink(panel, trace, text, context) {
  const [link] = lookOf(panel, "trace_id", "").links || [];
  return trace && link && context.live ? anchor(text, fillLink(link.url || "", { trace_id: trace }, context), context) : null;
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

/* ---- plots ---- */

/* Names of what is monitored stay out of Plotly, which takes text for markup: legends and tips are the page's own. */
const PLOT = { displayModeBar: false, showTips: false, doubleClick: false };
const AXIS = { color: "#7c879b", gridcolor: "#252c3b", zeroline: false, ticks: "", tickfont: { size: 11 } };
const TIME_TICKS = [{ dtickrange: [null, 59999], value: "%H:%M:%S" }, { dtickrange: [60000, 43199999], value: "%H:%M" }, { dtickrange: [43200000, null], value: "%m-%d" }];

/* Plotly knows no zones: it is given the viewer's wall clock, and answers in it. */
const wall = (seconds) => clock(seconds * 1000, true);

function times(data) {
  return Array.from({ length: Math.round((data.end - data.start) / data.step) + 1 }, (_, index) => data.start + index * data.step);
}

/* Draws the box's plot, or changes the one that is there. `build` returns its traces and layout, given its height, and
   `tip` the rows that are shown at a point. */
function plot(box, data, context, build, tip, legend) {
  const root = box.plot || make("div", "plot");
  const fresh = !box.plot;
  box.plot = root;
  if (fresh || (legend || null) !== root.nextSibling) box.replaceChildren(root, ...(legend ? [legend] : []));
  root.tip = tip;
  box.repaint = (always) => {
    const { clientWidth: width, clientHeight: height } = root;
    if (!width || !height || (!always && root.size === `${width} ${height}`)) return;
    root.size = `${width} ${height}`;
    const { traces, yaxis, dots, ...layout } = build(height);
    const longest = Math.max(...yaxis.ticktext.map((text) => text.length), 0);
    const margin = { t: 6, r: 8, b: 22, l: Math.max(34, 14 + longest * 6.2) };
    Plotly.react(root, traces, {
      width, height, showlegend: false, hovermode: "x", hoverdistance: -1, spikedistance: -1, dragmode: "zoom",
      paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: { family: "system-ui, sans-serif" },
      margin,
      xaxis: { ...AXIS, type: "date", range: [wall(data.start), wall(data.end)], tickformatstops: TIME_TICKS, showspikes: true, spikemode: "across", spikethickness: -1, spikedash: "solid", spikecolor: AXIS.color },
      yaxis: { ...AXIS, fixedrange: true, tickmode: "array", ...yaxis },
      ...layout,
    }, PLOT);
    root.querySelector(".dots")?.remove();
    if (dots) root.append(dotsOver(dots, data, yaxis.range, margin));
  };
  box.repaint(true);
  if (!fresh) return;
  root.on("plotly_hover", ({ points, event }) => context.tip.show(root, event, root.tip(points[0])));
  root.on("plotly_unhover", () => context.tip.hide());
  root.on("plotly_relayout", (change) => {
    const [from, to] = [0, 1].map((end) => Date.parse(String(change[`xaxis.range[${end}]`]).replace(" ", "T")) / 1000);
    if (to - from >= 60) context.zoom(from, to);
    box.repaint(true);
  });
}

/* Measurements of their own over the plot's area, which `margin` surrounds. */
function dotsOver(dots, data, [low, high], margin) {
  const found = make("div", "dots", ...dots.map(({ time, value, element }) => {
    element.style.left = `${(time - data.start) * 100 / (data.end - data.start)}%`;
    element.style.bottom = `${(value - low) * 100 / (high - low)}%`;
    return element;
  }));
  found.style.inset = `${margin.t}px ${margin.r}px ${margin.b}px ${margin.l}px`;
  return found;
}

function unplot(box) {
  if (box.plot) Plotly.purge(box.plot);
  box.plot = box.repaint = null;
}

function spanOf(look, values) {
  const filled = values.filter((value) => value !== null);
  return [look.min ?? Math.min(0, ...filled), look.max ?? Math.max(1e-9, ...filled)];
}

function drawTimeseries(box, panel, data, context) {
  const grid = times(data);
  const x = grid.map(wall);
  const main = lookOf(panel, "", "");
  const fill = (main.custom.fillOpacity || 0) / 100;
  const hidden = (box.hiddenNames ||= new Set());
  const rows = data.series.map((series, index) => {
    const look = lookOf(panel, series.name, series.ref);
    // An instant value is the last of its line.
    const y = series.values.length === grid.length ? series.values : grid.map((_, place) => (place === grid.length - 1 ? series.values[0] : null));
    return { series, look, y, tone: seriesColour(index, look) };
  });
  const stacked = rows.some(({ look }) => ((look.custom.stacking || {}).mode || "none") !== "none");
  const build = (height) => {
    const shownRows = rows.filter(({ series }) => !hidden.has(series.name));
    const heights = stacked ? grid.map((_, place) => shownRows.reduce((sum, { y }) => sum + (y[place] ?? 0), 0)) : shownRows.flatMap(({ y }) => y.filter((value) => value !== null));
    const traces = shownRows.map((row) => traceOf(row, x, main, fill, stacked));
    const dots = (data.exemplars || []).map((exemplar) => ({ ...exemplar, element: dotOf(exemplar, panel, main, context) }));
    return { traces, dots, yaxis: valueAxis([...heights, ...dots.map(({ value }) => value)], main, height), barmode: stacked ? "stack" : "overlay", shapes: [...thresholdsOf(main), ...marksOf(context.marks(), data)] };
  };
  const names = JSON.stringify(rows.map(({ series }) => series.name));
  if (!box.legend || box.legend.names !== names) {
    box.legend = make("div", "legend", ...rows.map((row) => legendItem(row, hidden, box, context)));
    box.legend.names = names;
    box.legend.hidden = ((panel.options || {}).legend || {}).showLegend === false;
  }
  plot(box, data, context, build, ({ pointIndex }) => tipOf(rows, hidden, grid[pointIndex], pointIndex, data.step, context.marks()), box.legend);
}

function traceOf({ y, look, tone }, x, main, fill, stacked) {
  if (main.custom.drawStyle === "bars") return { type: "bar", x, y, marker: { color: tone }, hoverinfo: "none" };
  const alone = y.map((value, index) => value !== null && (y[index - 1] ?? null) === null && (y[index + 1] ?? null) === null);
  return {
    type: "scatter", x, y, hoverinfo: "none",
    mode: alone.includes(true) ? "lines+markers" : "lines",
    line: { color: tone, width: Math.max(1.25, look.custom.lineWidth ?? 1.25) },
    marker: { color: tone, size: alone.map((lonely) => (lonely ? 4 : 0)), line: { width: 0 } },
    connectgaps: look.custom.spanNulls === true,
    ...(stacked ? { stackgroup: "all", fillcolor: withAlpha(tone, fill || 0.3) } : fill ? { fill: "tozeroy", fillcolor: withAlpha(tone, Math.min(fill, 0.25)) } : {}),
  };
}

/* One measurement, and the way to its trace where the panel names one. */
function dotOf({ time, value, labels }, panel, look, context) {
  const dot = traceLink(panel, labels.trace_id, "", context) || make("span");
  dot.className = "dot";
  dot.title = [`${clock(time * 1000, true)}: ${shown(value, look).text}`, ...Object.entries(labels).map(([name, text]) => `${name} ${text}`)].join("\n");
  dot.setAttribute("aria-label", dot.title);
  return dot;
}

/* From zero where zero is near; ticks on round numbers, in the panel's unit. */
function valueAxis(values, look, height) {
  let [from, to] = values.length ? [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))] : [0, 1];
  const room = from === to ? Math.abs(from) * 0.1 || 1 : (to - from) * 0.08;
  from = from >= 0 && from < Math.max(room, (to - from) * 0.6) ? 0 : from - room;
  from = look.min ?? from;
  to = Math.max(look.max ?? to + room, from + 1e-9);
  const rough = (to - from) / Math.max(2, height / 34);
  const power = ["bytes", "Bps"].includes(look.unit) ? 1024 ** Math.floor(Math.log(rough) / Math.log(1024)) : 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1024].find((part) => part * power >= rough) * power;
  const tickvals = Array.from({ length: Math.floor(to / step) - Math.ceil(from / step) + 1 }, (_, index) => (Math.ceil(from / step) + index) * step);
  const decimals = ["none", "percent"].includes(look.unit) ? Math.max(0, Math.min(6, -Math.floor(Math.log10(step)))) : undefined;
  return { range: [from, to], tickvals, ticktext: tickvals.map((tick) => formatUnit(Number(tick.toPrecision(12)), look.unit, decimals)) };
}

function marksOf(marks, data) {
  return marks.filter((mark) => mark.end >= data.start && mark.start <= data.end).flatMap((mark) => {
    const tone = colour(mark.colour, COLOURS.blue);
    const at = { yref: "paper", y0: 0, y1: 1, x0: wall(Math.max(mark.start, data.start)) };
    return [
      { ...at, type: "rect", x1: wall(Math.min(mark.end, data.end)), fillcolor: withAlpha(tone, 0.06), line: { width: 0 } },
      { ...at, type: "line", x1: at.x0, line: { color: withAlpha(tone, 0.8), width: 1, dash: "4px,4px" } },
    ];
  });
}

function thresholdsOf(look) {
  const style = (look.custom.thresholdsStyle || {}).mode || "off";
  const steps = style === "off" ? [] : ((look.thresholds || {}).steps || []).filter((step) => step.value !== null && step.value !== undefined);
  return steps.map(({ value, color }) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: value, y1: value, line: { color: withAlpha(colour(color, COLOURS.red), 0.7), width: 1, dash: style.includes("dashed") ? "6px,5px" : "solid" } }));
}

function legendItem({ series, look, tone }, hidden, box, context) {
  const mark = make("i", "swatch");
  mark.style.background = tone;
  const toggle = make("button", "legend-item", mark, series.name || "value");
  toggle.title = series.name;
  toggle.setAttribute("aria-pressed", String(!hidden.has(series.name)));
  toggle.addEventListener("click", () => {
    const shows = hidden.delete(series.name);
    if (!shows) hidden.add(series.name);
    toggle.setAttribute("aria-pressed", String(shows));
    box.repaint(true);
  });
  if (!(look.links || []).length) return toggle;
  const more = linked(make("span", "more", "↗"), look.links, series.labels, context);
  more.title = `Links of ${series.name}`;
  return make("span", "legend-pair", toggle, more);
}

function tipOf(rows, hidden, at, place, step, marks) {
  const found = rows.filter(({ series, y }) => !hidden.has(series.name) && (y[place] ?? null) !== null).sort((one, other) => other.y[place] - one.y[place]);
  const lines = found.slice(0, 14).map(({ series, look, tone, y }) => {
    const mark = make("i", "swatch");
    mark.style.background = tone;
    return make("div", "tip-row", mark, make("span", "tip-name", series.name), make("b", "", shown(y[place], look).text));
  });
  if (found.length > 14) lines.push(make("div", "dim", `and ${found.length - 14} more`));
  const near = marks.filter((mark) => at >= mark.start - step && at <= mark.end + step);
  return [make("div", "dim", wall(at)), ...lines, ...near.map((mark) => make("div", "tip-mark", `${mark.title}${mark.text ? `: ${mark.text}` : ""}`))];
}

function drawHeatmap(box, panel, data, context) {
  const grid = times(data);
  const used = data.series.filter((series) => series.values.some((value) => value));
  const unit = ((panel.options || {}).yAxis || {}).unit || lookOf(panel, "", "").unit;
  const label = ({ name }) => (Number.isFinite(Number(name)) ? `≤ ${formatUnit(Number(name), unit)}` : name === "+Inf" ? "more" : name);
  const build = (height) => {
    const every = Math.ceil((14 * used.length) / height);
    const tickvals = used.map((_, row) => row).filter((row) => row % every === 0);
    return {
      traces: [{
        type: "heatmap", x: grid.map(wall), y: used.map((_, row) => row), z: used.map(({ values }) => values.map((value) => (value ? Math.sqrt(value) : null))),
        colorscale: [[0, "#19253c"], [0.5, "#3565ad"], [1, "#8fb8f7"]], zmin: 0, showscale: false, ygap: 1, hoverongaps: false, hoverinfo: "none",
      }],
      hovermode: "closest",
      yaxis: { showgrid: false, range: [-0.5, used.length - 0.5], tickvals, ticktext: tickvals.map((row) => label(used[row]).slice(0, 11).replaceAll("<", "‹")) },
    };
  };
  plot(box, data, context, build, ({ pointIndex: [row, column] }) => [
    make("div", "dim", wall(grid[column])),
    make("div", "tip-row", make("span", "tip-name", label(used[row])), make("b", "", plainNumber(used[row].values[column] ?? 0))),
  ]);
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

/* ---- states over time ---- */

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

/* The lines of our services are JSON: what happened first, then the rest as name=value. The trace stands by itself. */
function readable({ line, labels }) {
  let fields = null;
  if (line.startsWith("{")) {
    try {
      fields = JSON.parse(line);
    } catch { /* not JSON: shown as it is */ }
  }
  const event = fields && (fields.event || fields.message || fields.msg);
  const trace = labels.trace_id || (fields && typeof fields.trace_id === "string" ? fields.trace_id : "");
  if (typeof event !== "string") return { event: line, rest: "", trace };
  const rest = Object.entries(fields).filter(([name, value]) => !(name === "trace_id" && value === trace) && !["event", "message", "msg", "timestamp", "time", "ts", "level", "severity", "service"].includes(name));
  return { event, rest: rest.map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(" "), trace };
}

function drawLogs(box, panel, data, context) {
  if (!box.logs) {
    const search = make("input", "search");
    search.type = "search";
    search.placeholder = "Search these lines";
    search.setAttribute("aria-label", "Search these lines");
    box.logs = { search, off: new Set(), open: new Set() };
    search.addEventListener("input", () => listLogs(box));
  }
  box.logs.traced = (trace) => traceLink(panel, trace, `trace_id=${trace}`, context) || make("span", "dim", `trace_id=${trace}`);
  box.logs.lines = data.lines.map((entry) => ({ ...entry, level: levelOf(entry), read: readable(entry), key: entry.time + entry.line }));
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
  const { event, rest, trace } = entry.read;
  const head = make("summary", "", make("time", "", clock(milliseconds)), make("span", "log-service", entry.labels.service || entry.labels.pod || entry.labels.job || ""), make("span", "log-event", event), rest ? make("span", "log-rest", rest) : null, trace ? make("span", "log-trace", state.traced(trace)) : null);
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
