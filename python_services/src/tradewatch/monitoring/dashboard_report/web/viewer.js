"use strict";
/* The page: which dashboard, which span of time, which choices; asks for data and hands it to the plots.
   In a report everything is in the file (`#report`), and nothing is asked for. */

const REFRESH_SECONDS = 30;
/* How far outside the window a panel is drawn already. */
const AHEAD_PIXELS = 400;
const RANGES = [["now-5m", "5 minutes"], ["now-15m", "15 minutes"], ["now-30m", "30 minutes"], ["now-1h", "1 hour"], ["now-3h", "3 hours"], ["now-6h", "6 hours"], ["now-12h", "12 hours"], ["now-24h", "24 hours"], ["now-2d", "2 days"], ["now-7d", "7 days"], ["now-30d", "30 days"]];
const ALL = "$__all";

const embedded = document.getElementById("report");
const report = embedded ? JSON.parse(embedded.textContent) : null;
const app = document.getElementById("app");
/* What came with the page, each taken once. */
const start = JSON.parse(app.dataset.start || "{}");
const state = { index: null, uid: null, dashboard: null, from: "now-1h", to: "now", chosen: {}, marks: [], variables: [], panels: new Map(), round: 0, view: null };

/* Plotly comes after this file, and takes long: this ends when it is there. */
const PLOTTED = ["timeseries", "graph", "heatmap"];
const plotly = new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve));

/* ---- where data comes from ---- */

class Failure extends Error {}

async function ask(path) {
  let answer;
  try {
    answer = await fetch(path, { signal: AbortSignal.timeout(45000) });
  } catch {
    throw new Failure("The service does not answer; trying again.");
  }
  let body = null;
  try {
    body = await answer.json();
  } catch { /* told below */ }
  if (!answer.ok || body === null) throw new Failure((body && body.error) || `The service answers ${answer.status}.`);
  return body;
}

function taken(name) {
  const found = start[name];
  delete start[name];
  return found;
}

const source = report
  ? {
      index: async () => ({ dashboards: report.dashboards.map(({ view }) => ({ uid: view.uid, title: view.title })), problems: report.problems }),
      dashboard: async (uid) => report.dashboards.find(({ view }) => view.uid === uid).view,
      frame: async (uid) => report.dashboards.find(({ view }) => view.uid === uid).frame,
      panel: async (uid, id) => report.dashboards.find(({ view }) => view.uid === uid).panels[id],
    }
  : {
      index: async () => taken("index") || ask("/api/dashboards"),
      dashboard: async (uid) => {
        const first = taken("dashboard");
        return first && first.uid === uid ? first : ask(`/api/dashboards/${uid}`);
      },
      frame: (uid) => ask(`/api/dashboards/${uid}/frame?${query()}`),
      panel: (uid, id) => ask(`/api/dashboards/${uid}/panels/${id}?${query()}`),
    };

function query() {
  const found = new URLSearchParams({ from: state.from, to: state.to });
  for (const [name, values] of Object.entries(state.chosen)) for (const value of values) found.append(`var-${name}`, value);
  return found.toString();
}

/* ---- what the plots use ---- */

const tipBox = make("div", "tip");
tipBox.hidden = true;
const menuBox = make("div", "menu");
menuBox.hidden = true;

const context = {
  get from() { return state.from; },
  get to() { return state.to; },
  get variables() { return Object.fromEntries(state.variables.map(({ name, values }) => [name, values])); },
  live: !report,
  get constants() { return state.dashboard.constants; },
  get allVariables() { return query().split("&").filter((part) => part.startsWith("var-")).join("&"); },
  marks: () => state.marks,
  zoom: (from, to) => { if (!report) setRange(String(Math.round(from * 1000)), String(Math.round(to * 1000))); },
  menu: (links, left, top) => {
    menuBox.replaceChildren(...links);
    menuBox.hidden = false;
    menuBox.style.left = `${Math.max(8, Math.min(left, innerWidth - menuBox.offsetWidth - 8))}px`;
    menuBox.style.top = `${Math.min(top + 4, innerHeight - menuBox.offsetHeight - 8)}px`;
  },
  /* A link to a dashboard here; in a report it changes the tab. */
  inside: (element, address) => {
    element.href = report ? `#${address.split(/[/?#]/)[2]}` : address;
  },
  tip: {
    owner: null,
    show(owner, event, rows) {
      if (!event) return;
      this.owner = owner;
      tipBox.replaceChildren(...rows);
      tipBox.hidden = false;
      const left = event.clientX + 16;
      tipBox.style.left = `${left + tipBox.offsetWidth > innerWidth ? Math.max(4, event.clientX - tipBox.offsetWidth - 12) : left}px`;
      tipBox.style.top = `${Math.max(4, Math.min(event.clientY + 12, innerHeight - tipBox.offsetHeight - 8))}px`;
    },
    hide() {
      tipBox.hidden = true;
      this.owner = null;
    },
  },
};

document.addEventListener("click", () => { menuBox.hidden = true; });
document.addEventListener("keydown", (event) => { if (event.key === "Escape") menuBox.hidden = true; });
document.addEventListener("mouseleave", () => context.tip.hide());

/* ---- the page's parts ---- */

const tabs = make("nav", "tabs");
const linkBar = make("nav", "links");
const controls = make("div", "controls");
const choices = make("div", "choices");
const status = make("span", "status");
status.setAttribute("role", "status");
const notice = make("div", "notice");
notice.hidden = true;
const main = make("main", "");
app.append(make("header", "", make("div", "brand", make("b", "", "Tradewatch"), tabs, linkBar), make("div", "tools", choices, controls)), notice, main, tipBox, menuBox);

function tell(line) {
  notice.textContent = line;
  notice.hidden = !line;
}

function drawTabs() {
  tabs.replaceChildren(...state.index.dashboards.map(({ uid, title }) => {
    const tab = make("a", uid === state.uid ? "tab here" : "tab", title);
    tab.href = report ? `#${uid}` : `/d/${uid}?${query()}`;
    if (uid === state.uid) tab.setAttribute("aria-current", "page");
    return tab;
  }));
  // The dashboard's own links, but those to another dashboard as a whole: the tabs are that.
  const whole = state.index.dashboards.map(({ uid }) => `/d/${uid}`);
  linkBar.replaceChildren(...(state.dashboard.links || []).filter(({ url }) => url && !whole.includes(url)).map((link) => {
    const url = fillLink(link.url, {}, context);
    const carried = [link.keepTime && fillLink("${__url_time_range}", {}, context), link.includeVars && context.allVariables].filter(Boolean).join("&");
    const found = anchor(link.title || link.url, url + (carried && (url.includes("?") ? "&" : "?") + carried), context);
    if (found && link.tooltip) found.title = link.tooltip;
    return found;
  }).filter(Boolean));
}

function drawControls() {
  if (report) {
    controls.replaceChildren(make("span", "dim", `${clock(report.start * 1000, true)} to ${clock(report.end * 1000, true)}`));
    return;
  }
  const select = make("select", "");
  select.setAttribute("aria-label", "Time range");
  const known = RANGES.some(([from]) => from === state.from) && state.to === "now";
  for (const [from, text] of RANGES) select.append(new Option(`Last ${text}`, from, false, known && from === state.from));
  const custom = new Option(known ? "From … to …" : rangeText(), "custom", false, !known);
  select.append(custom);
  const from = make("input", "");
  const to = make("input", "");
  for (const [input, label] of [[from, "From"], [to, "To"]]) {
    input.type = "datetime-local";
    input.step = "1";
    input.setAttribute("aria-label", label);
  }
  const apply = make("button", "button", "Apply");
  const span = make("span", "span", from, to, apply);
  span.hidden = true;
  select.addEventListener("change", () => {
    if (select.value !== "custom") return setRange(select.value, "now");
    const end = Date.now();
    from.value = local(end - 3600e3);
    to.value = local(end);
    span.hidden = false;
    return from.focus();
  });
  apply.addEventListener("click", () => {
    const [start, end] = [Date.parse(from.value), Date.parse(to.value)];
    if (!(end - start >= 60000)) return tell("The span must end at least a minute after it starts.");
    return setRange(String(start), String(end));
  });
  const refresh = make("button", "button", "Refresh");
  refresh.addEventListener("click", () => refreshNow());
  controls.replaceChildren(select, span, refresh, status);
}

function local(milliseconds) {
  return clock(milliseconds, true).replace(" ", "T");
}

function rangeText() {
  const text = (value) => (/^\d+$/.test(value) ? clock(Number(value), true) : value);
  return `${text(state.from)} to ${text(state.to)}`;
}

function drawChoices() {
  const fresh = JSON.stringify(state.variables);
  if (choices.dataset.shown === fresh || choices.contains(document.activeElement) || choices.querySelector("details[open]")) return;
  choices.dataset.shown = fresh;
  choices.replaceChildren(...state.variables.filter((variable) => !variable.hidden).map((variable) => make("label", "choice", make("span", "dim", variable.label), choiceOf(variable))));
}

function choiceOf(variable) {
  if (report) return make("b", "", variable.values.map((value) => (value === ALL ? "All" : value)).join(", ") || "any");
  if (variable.error) return make("span", "wrong", variable.error);
  if (variable.kind === "textbox") {
    const input = make("input", "");
    input.value = variable.values[0] || "";
    input.placeholder = "any";
    input.maxLength = 200;
    input.addEventListener("change", () => setChoice(variable.name, [input.value]));
    return input;
  }
  const options = [...(variable.all ? [[ALL, "All"]] : []), ...variable.options];
  if (!variable.multi) {
    const select = make("select", "");
    for (const [value, text] of options) select.append(new Option(text, value, false, variable.values.includes(value)));
    select.addEventListener("change", () => setChoice(variable.name, [select.value]));
    return select;
  }
  const names = variable.values.map((value) => (value === ALL ? "All" : (variable.options.find(([known]) => known === value) || [value, value])[1]));
  const boxes = options.map(([value, text]) => {
    const box = make("input", "");
    box.type = "checkbox";
    box.checked = variable.values.includes(value);
    box.value = value;
    return make("label", "option", box, text);
  });
  const list = make("details", "multi", make("summary", "", names.length > 2 ? `${names.length} chosen` : names.join(", ") || "none"), make("div", "options", ...boxes));
  list.addEventListener("change", (event) => {
    if (event.target.value === ALL && event.target.checked) for (const box of boxes) box.firstChild.checked = box.firstChild.value === ALL;
    else if (event.target.checked) for (const box of boxes) if (box.firstChild.value === ALL) box.firstChild.checked = false;
  });
  list.addEventListener("toggle", () => {
    if (list.open) return;
    const values = boxes.filter((box) => box.firstChild.checked).map((box) => box.firstChild.value);
    if (values.join("\n") !== variable.values.join("\n")) setChoice(variable.name, values);
  });
  return list;
}

document.addEventListener("click", (event) => {
  for (const open of document.querySelectorAll("details.multi[open]")) if (!open.contains(event.target)) open.open = false;
});

/* ---- panels ---- */

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const panel = state.panels.get(Number(entry.target.dataset.panel));
    if (!panel) continue;
    panel.visible = entry.isIntersecting;
    if (panel.visible && panel.round !== state.round) load(panel);
  }
}, { rootMargin: `${AHEAD_PIXELS}px` });

/* The same at once: what observes tells it only when Plotly has run. */
function inView(element) {
  const { top, bottom } = element.getBoundingClientRect();
  return bottom > top && bottom > -AHEAD_PIXELS && top < innerHeight + AHEAD_PIXELS;
}

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) if (target.repaint) target.repaint();
});

function layout() {
  for (const { box } of state.panels.values()) unplot(box);
  state.panels.clear();
  seen.disconnect();
  sizes.disconnect();
  const one = state.view && state.dashboard.panels.find((panel) => panel.id === state.view && panel.type !== "row");
  if (one) {
    const back = make("button", "button", "← All panels");
    back.addEventListener("click", () => {
      state.view = null;
      address(true);
      layout();
      refreshNow();
    });
    const element = panelOf({ ...one, gridPos: { x: 0, y: 0, w: 24, h: 20 } }, 0);
    main.replaceChildren(back, make("div", "grid", element));
    return;
  }
  const sections = [];
  for (const panel of state.dashboard.panels) {
    if (panel.type === "row") sections.push({ row: panel, panels: [] });
    else {
      if (!sections.length) sections.push({ row: null, panels: [] });
      sections[sections.length - 1].panels.push(panel);
    }
  }
  main.replaceChildren(...sections.filter((section) => section.row || section.panels.length).map((section) => {
    const top = Math.min(...section.panels.map((panel) => (panel.gridPos || {}).y || 0));
    const grid = make("div", "grid", ...section.panels.map((panel) => panelOf(panel, top)));
    if (!section.row) return grid;
    const found = make("details", "row", make("summary", "", section.row.title || ""), grid);
    found.open = report ? true : !section.row.collapsed;
    return found;
  }));
}

function panelOf(panel, top) {
  const at = { x: 0, y: 0, w: 12, h: 8, ...(panel.gridPos || {}) };
  const title = make("h2", "", panel.title || "");
  // Two lines are shown of it.
  title.title = panel.title || "";
  const problem = make("div", "problem");
  problem.hidden = true;
  const box = make("div", `box ${panel.type}`);
  const help = panel.description ? make("span", "help", "i") : null;
  if (help) {
    help.tabIndex = 0;
    help.setAttribute("aria-label", panel.description);
    const explain = (event) => context.tip.show(help, event.clientX ? event : { clientX: help.getBoundingClientRect().left, clientY: help.getBoundingClientRect().bottom }, [make("div", "explain", panel.description)]);
    help.addEventListener("mouseenter", explain);
    help.addEventListener("focus", explain);
    help.addEventListener("mouseleave", () => context.tip.hide());
    help.addEventListener("blur", () => context.tip.hide());
  }
  const links = linksOf(panel.links, {}, context);
  const element = make("section", "panel", make("div", "panel-head", title, help, ...links), problem, box);
  element.dataset.panel = panel.id;
  element.style.setProperty("--column", `${at.x + 1} / span ${at.w}`);
  element.style.setProperty("--row", `${Math.max(1, at.y - top + 1)} / span ${at.h}`);
  element.style.setProperty("--height", `${Math.max(at.h, 4) * 34}px`);
  state.panels.set(panel.id, { panel, element, title, problem, box, visible: false, round: -1 });
  seen.observe(element);
  sizes.observe(box);
  return element;
}

async function load(entry) {
  const { round, uid } = state;
  entry.round = round;
  if (!entry.box.hasChildNodes()) entry.element.classList.add("loading");
  let data;
  try {
    data = entry.panel.queries || entry.panel.type === "text" || report ? await source.panel(uid, entry.panel.id) : { errors: [], notices: [], series: [], lines: [] };
  } catch (error) {
    data = { errors: [error instanceof Failure ? error.message : "The data cannot be read."], notices: [], failed: true };
  }
  if (PLOTTED.includes(entry.panel.type)) await plotly;
  if (round !== state.round || uid !== state.uid) return;
  entry.element.classList.remove("loading");
  show(entry, data);
}

function show(entry, data) {
  const lines = [...data.errors, ...data.notices];
  entry.problem.textContent = lines.join(" · ");
  entry.problem.title = lines.join("\n");
  entry.problem.hidden = !lines.length;
  entry.problem.classList.toggle("wrong", data.errors.length > 0);
  if (data.title !== undefined) entry.title.textContent = entry.title.title = data.title;
  const draw = DRAW[entry.panel.type];
  const nothing = !(data.series || []).length && !data.table && !data.lines && entry.panel.type !== "text";
  if (!draw) return entry.box.replaceChildren(make("div", "empty", `panels of the type ${entry.panel.type} are not drawn here`));
  // What was drawn stays while a datasource fails for a moment; the line above says so.
  if (data.failed || (nothing && data.errors.length)) return entry.box.hasChildNodes() ? null : entry.box.replaceChildren(make("div", "empty", "no data"));
  try {
    if (nothing && entry.panel.type !== "stat") {
      unplot(entry.box);
      entry.box.replaceChildren(make("div", "empty", lookOf(entry.panel, "", "").noValue || "no data in this time"));
    } else draw(entry.box, entry.panel, data, context);
    entry.element.dataset.drawn = String(Number(entry.element.dataset.drawn || 0) + 1);
  } catch (error) {
    entry.problem.textContent = `cannot be drawn: ${error.message}`;
    entry.problem.hidden = false;
    entry.problem.classList.add("wrong");
  }
  return null;
}

/* ---- time goes on ---- */

async function refreshNow() {
  state.round += 1;
  const round = state.round;
  const visible = [...state.panels.values()].filter((entry) => entry.visible);
  const panels = Promise.all(visible.map((entry) => load(entry)));
  try {
    const frame = await source.frame(state.uid);
    if (round !== state.round) return;
    const marked = JSON.stringify(frame.marks) !== JSON.stringify(state.marks);
    const known = JSON.stringify(frame.variables) !== JSON.stringify(state.variables);
    state.marks = frame.marks;
    state.variables = frame.variables;
    if (known) drawTabs();
    drawChoices();
    tell([...state.index.problems, ...frame.errors].join(" · "));
    if (marked) for (const { box, visible: inView } of state.panels.values()) if (inView && box.plot) box.repaint(true);
    status.textContent = `updated ${clock(Date.now())}`;
  } catch (error) {
    if (round === state.round) tell(error instanceof Failure ? error.message : "The data cannot be read.");
  }
  await panels;
}

function setRange(from, to) {
  Object.assign(state, { from, to });
  address(true);
  tell("");
  drawTabs();
  drawControls();
  refreshNow();
}

function setChoice(name, values) {
  state.chosen[name] = values;
  address(true);
  drawTabs();
  refreshNow();
}

function address(push) {
  if (report) return;
  const found = `/d/${state.uid}?${query()}${state.view ? `&viewPanel=${state.view}` : ""}`;
  if (push) history.pushState(null, "", found);
  else history.replaceState(null, "", found);
}

async function open() {
  const place = new URLSearchParams(location.search);
  const wanted = report ? decodeURIComponent(location.hash.slice(1)) : (/^\/d\/([\w-]+)/.exec(location.pathname) || [])[1];
  state.index = await source.index();
  tell(state.index.problems.join(" · "));
  const known = state.index.dashboards.map(({ uid }) => uid);
  if (!known.length) return;
  const uid = known.includes(wanted) ? wanted : known[0];
  if (uid !== state.uid) state.dashboard = await source.dashboard(uid);
  state.uid = uid;
  document.title = `${state.dashboard.title} · Tradewatch`;
  state.from = report ? String(report.start * 1000) : place.get("from") || state.dashboard.from;
  state.to = report ? String(report.end * 1000) : place.get("to") || "now";
  state.view = Number(place.get("viewPanel")) || null;
  state.chosen = {};
  for (const [name, value] of place) if (name.startsWith("var-")) (state.chosen[name.slice(4)] ||= []).push(value);
  state.variables = [];
  choices.dataset.shown = "";
  choices.replaceChildren();
  address(false);
  drawTabs();
  drawControls();
  layout();
  for (const entry of state.panels.values()) entry.visible = inView(entry.element);
  await refreshNow();
}

async function begin() {
  try {
    await open();
  } catch (error) {
    tell(error instanceof Failure ? error.message : "The page cannot be shown.");
    if (!report) setTimeout(begin, 5000);
    return;
  }
  if (report) window.addEventListener("hashchange", () => open());
  else {
    window.addEventListener("popstate", () => open());
    setInterval(() => { if (!document.hidden) refreshNow(); }, (Number(new URLSearchParams(location.search).get("refresh")) || REFRESH_SECONDS) * 1000);
  }
}

begin();
