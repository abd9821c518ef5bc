"use strict";
/* How values become text and colour: Grafana's units, mappings, thresholds and palette. */

const PALETTE = ["#7aa2f7", "#73c991", "#e5b567", "#d18ae0", "#5cc8d7", "#ef8e6b", "#b5c97a", "#e97b9d", "#8f9ff0", "#c9a27a"];
const COLOURS = {
  green: "#5fb878", yellow: "#e3c04f", orange: "#e8935a", red: "#e5646e", blue: "#6ea8fe", purple: "#b98ae6",
  text: "#cdd5e3", transparent: "transparent", white: "#ffffff", black: "#000000", gray: "#7c879b", grey: "#7c879b",
};

function colour(name, otherwise) {
  if (typeof name !== "string" || !name) return otherwise;
  if (/^#[0-9a-fA-F]{3,8}$/.test(name)) return name;
  return COLOURS[name.replace(/^(super-light|light|semi-dark|dark)-/, "")] || otherwise;
}

function withAlpha(hex, alpha) {
  return /^#[0-9a-fA-F]{6}$/.test(hex) ? hex + Math.round(alpha * 255).toString(16).padStart(2, "0") : hex;
}

function scaled(value, base, names, decimals) {
  let index = 0;
  let size = value;
  while (Math.abs(size) >= base && index < names.length - 1) {
    size /= base;
    index += 1;
  }
  return plainNumber(size, decimals) + names[index];
}

function plainNumber(value, decimals) {
  if (decimals !== undefined && decimals !== null) return value.toFixed(decimals);
  const size = Math.abs(value);
  if (size === 0 || Number.isInteger(value)) return String(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 1) return String(Number(value.toFixed(2)));
  return size < 1e-6 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
}

function duration(seconds, decimals) {
  const size = Math.abs(seconds);
  if (size === 0) return "0 s";
  if (size < 1e-6) return plainNumber(seconds * 1e9, decimals) + " ns";
  if (size < 1e-3) return plainNumber(seconds * 1e6, decimals) + " µs";
  if (size < 1) return plainNumber(seconds * 1e3, decimals) + " ms";
  if (size < 120) return plainNumber(seconds, decimals) + " s";
  if (size < 7200) return plainNumber(seconds / 60, decimals ?? 1) + " min";
  if (size < 172800) return plainNumber(seconds / 3600, decimals ?? 1) + " h";
  return plainNumber(seconds / 86400, decimals ?? 1) + " d";
}

const IEC = [" B", " KiB", " MiB", " GiB", " TiB", " PiB"];
const SI = ["", " K", " Mil", " Bil", " Tri"];
const PER_SECOND = { reqps: "req/s", ops: "ops/s", cps: "/s", eps: "events/s", mps: "msg/s", rps: "reads/s", wps: "writes/s", hertz: "Hz" };

function formatUnit(value, unit, decimals) {
  switch (unit) {
    case "percent": return plainNumber(value, decimals ?? (Math.abs(value) >= 100 ? 0 : 1)) + " %";
    case "percentunit": return plainNumber(value * 100, decimals ?? (Math.abs(value) >= 1 ? 0 : 1)) + " %";
    case "s": case "dtdurations": return duration(value, decimals);
    case "ms": case "dtdurationms": return duration(value / 1000, decimals);
    case "µs": return duration(value / 1e6, decimals);
    case "ns": return duration(value / 1e9, decimals);
    case "m": return duration(value * 60, decimals);
    case "h": return duration(value * 3600, decimals);
    case "d": return duration(value * 86400, decimals);
    case "bytes": return scaled(value, 1024, IEC, decimals);
    case "decbytes": return scaled(value, 1000, [" B", " kB", " MB", " GB", " TB", " PB"], decimals);
    case "Bps": case "binBps": return scaled(value, 1024, IEC, decimals) + "/s";
    case "bps": return scaled(value, 1000, [" b", " kb", " Mb", " Gb"], decimals) + "/s";
    case "currencyUSD": return (value < 0 ? "-$" : "$") + Math.abs(value).toLocaleString("en-US", { maximumFractionDigits: decimals ?? 2 });
    case "dateTimeAsIso": case "dateTimeAsLocal": case "time:YYYY-MM-DD HH:mm:ss": return clock(value, true);
    case "dateTimeFromNow": return duration((Date.now() - value) / 1000, decimals) + " ago";
    case "none": return plainNumber(value, decimals);
    case "celsius": return plainNumber(value, decimals) + " °C";
    case "bool": return value ? "true" : "false";
    case "bool_yes_no": return value ? "yes" : "no";
    case "bool_on_off": return value ? "on" : "off";
    case undefined: case null: case "": case "short": return scaled(value, 1000, SI, decimals);
  }
  if (PER_SECOND[unit]) return scaled(value, 1000, SI, decimals) + " " + PER_SECOND[unit];
  if (unit.startsWith("suffix:")) return plainNumber(value, decimals) + " " + unit.slice(7);
  if (unit.startsWith("prefix:")) return unit.slice(7) + plainNumber(value, decimals);
  return scaled(value, 1000, SI, decimals) + " " + unit;
}

function clock(milliseconds, withDate) {
  const at = new Date(milliseconds);
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return withDate ? `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}` : time;
}

/* The look of one series or column: the panel's defaults, and the overrides that match its name. */
function lookOf(panel, name, ref) {
  const config = panel.fieldConfig || {};
  const look = { ...(config.defaults || {}), custom: { ...((config.defaults || {}).custom || {}) } };
  for (const override of config.overrides || []) {
    if (!matches(override.matcher || {}, name, ref)) continue;
    for (const property of override.properties || []) {
      if (property.id && property.id.startsWith("custom.")) look.custom[property.id.slice(7)] = property.value;
      else look[property.id] = property.value;
    }
  }
  return look;
}

function matches(matcher, name, ref) {
  if (matcher.id === "byName") return matcher.options === name;
  if (matcher.id === "byFrameRefID") return matcher.options === ref;
  if (matcher.id !== "byRegexp") return false;
  try {
    return new RegExp(String(matcher.options).replace(/^\/(.*)\/$/, "$1")).test(name);
  } catch {
    return false;
  }
}

function mapped(value, look) {
  for (const mapping of look.mappings || []) {
    const options = mapping.options || {};
    if (mapping.type === "value" && Object.hasOwn(options, String(value))) return options[String(value)];
    if (mapping.type === "range" && typeof value === "number") {
      if (value >= (options.from ?? -Infinity) && value <= (options.to ?? Infinity)) return options.result || {};
    }
    if (mapping.type === "special" && options.match === "null" && value === null) return options.result || {};
  }
  return null;
}

function thresholdColour(value, look, span) {
  const thresholds = look.thresholds || {};
  let at = value;
  if (thresholds.mode === "percentage" && span) at = ((value - span[0]) / (span[1] - span[0] || 1)) * 100;
  let found = null;
  for (const step of thresholds.steps || []) if (step.value === null || step.value === undefined || at >= step.value) found = step.color;
  return colour(found, COLOURS.text);
}

/* A value's text and colour. */
function shown(value, look, span) {
  const mapping = mapped(value, look);
  if (value === null || value === undefined) {
    return { text: (mapping && mapping.text) || look.noValue || "no data", colour: colour(mapping && mapping.color, COLOURS.gray) };
  }
  const text = typeof value === "number" ? formatUnit(value, look.unit, look.decimals) : String(value);
  const mode = (look.color || {}).mode;
  let tone = typeof value === "number" ? thresholdColour(value, look, span) : COLOURS.text;
  if (mode === "fixed") tone = colour(look.color.fixedColor, tone);
  return { text: (mapping && mapping.text) || text, colour: colour(mapping && mapping.color, tone) };
}

function seriesColour(index, look) {
  const tone = look.color || {};
  return tone.mode === "fixed" ? colour(tone.fixedColor, PALETTE[index % PALETTE.length]) : PALETTE[index % PALETTE.length];
}

/* One number of many, as Grafana's reducers do. */
function reduced(values, calculation) {
  const filled = values.filter((value) => value !== null);
  if (calculation === "last") return values.length ? values[values.length - 1] : null;
  if (!filled.length) return null;
  switch (calculation) {
    case "first": case "firstNotNull": return filled[0];
    case "min": return Math.min(...filled);
    case "max": return Math.max(...filled);
    case "sum": return filled.reduce((sum, value) => sum + value, 0);
    case "mean": return filled.reduce((sum, value) => sum + value, 0) / filled.length;
    case "count": return filled.length;
    case "range": return Math.max(...filled) - Math.min(...filled);
    case "delta": case "diff": return filled[filled.length - 1] - filled[0];
  }
  return filled[filled.length - 1];
}
