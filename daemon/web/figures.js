// The figures page: drawn as SVG, and the same as a table.

import { brief, call, el, hectares, number, percent, t } from "./base.js";
import { bars, pairs } from "./charts.js";

const PLACE = document.getElementById("figures");

function table(heads, rows) {
  return el("details", { class: "table" }, el("summary", {}, t("figure.table")),
    el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, rows.map(([first, ...rest]) => el("tr", {}, el("th", { scope: "row" }, first), rest.map((cell) => el("td", { class: "number" }, cell))))))));
}

function figure(name, about, ...content) {
  return el("figure", {}, el("figcaption", {}, el("h3", {}, name), el("p", { class: "note" }, about)), ...content);
}

function stocks(years) {
  const rows = years.map((y) => [String(y.year), y.artificialised]);
  return figure(t("figure.stock"), t("figure.stock.about"),
    bars(rows, { label: t("figure.stock"), format: (v) => `${hectares(v)} ha` }),
    table([t("millesime"), `${t("figure.artificialised")} (ha)`, t("figure.share")],
      years.map((y) => [String(y.year), hectares(y.artificialised), percent(y.area ? y.artificialised / y.area : 0)])));
}

function flows(periods) {
  const rows = periods.flatMap((p) => p.territories.map((f) => ({
    name: `${f.name} ${p.before}–${p.after}`, more: f.artificialised, less: f.desartificialised,
    cells: [`${p.before}–${p.after}`, f.name, hectares(f.artificialised), hectares(f.desartificialised)],
  })));
  return figure(t("figure.flux"), t("figure.flux.about"),
    pairs(rows.slice(0, 40), { label: t("figure.flux"), more: t("figure.artificialised"), less: t("figure.desartificialised"), format: hectares }),
    table([t("figure.period"), t("figure.territory"), `${t("figure.artificialised")} (ha)`, `${t("figure.desartificialised")} (ha)`], rows.map((r) => r.cells)));
}

function matrix({ before, after, matrix: cells }, labels) {
  const rows = Object.keys(cells).sort();
  const columns = [...new Set(rows.flatMap((row) => Object.keys(cells[row])))].sort();
  const most = Math.max(...rows.flatMap((row) => Object.values(cells[row])));
  const head = (code, scope) => el("th", { scope }, el("code", {}, code || "–"), el("br"), brief(labels[code] ?? t("unknown")));
  const cell = (value) => {
    const made = el("td", { class: "number" }, value ? hectares(value) : "");
    if (value) {
      const depth = Math.sqrt(value / most);
      made.style.backgroundColor = `rgb(0 68 136 / ${0.08 + 0.82 * depth})`;
      made.style.color = depth > 0.5 ? "#fff" : "#111";
    }
    return made;
  };
  return figure(t("figure.matrix", { before, after }), t("figure.matrix.about"),
    el("div", { class: "wide" }, el("table", { class: "matrix" },
      el("thead", {}, el("tr", {}, el("td", {}, `${before} ↓ ${after} →`), columns.map((c) => head(c, "col")))),
      el("tbody", {}, rows.map((row) => el("tr", {}, head(row, "row"), columns.map((c) => cell(cells[row][c]))))))));
}

function latency({ median_days: median, steps, counts }) {
  if (median === null) return figure(t("figure.latency"), t("figure.latency.none"));
  const names = [...steps.map((days) => t("figure.latency.upto", { days })), t("figure.latency.more", { days: steps.at(-1) })];
  const rows = names.map((name, i) => [name, counts[i]]);
  return figure(t("figure.latency"), t("figure.latency.about", { median: number(median) }),
    bars(rows, { label: t("figure.latency"), format: String }),
    table([t("figure.latency.days"), t("figure.latency.number")], rows.map(([name, value]) => [name, String(value)])));
}

/** Rejected alerts: a row for each cause, a column for each kind, the greatest sums first. */
function falseAlarms(rejected) {
  const name = t("figure.false-alarms");
  if (!rejected.length) return figure(name, t("figure.false-alarms.none"));
  const sum = (rows) => rows.reduce((all, r) => all + r.count, 0);
  const ranked = (field) => [...new Set(rejected.map((r) => r[field]))].map((value) => [value, sum(rejected.filter((r) => r[field] === value))]).sort((a, b) => b[1] - a[1]);
  const [causes, kinds, total] = [ranked("cause"), ranked("kind"), sum(rejected)];
  const cell = (cause, kind) => {
    const found = rejected.find((r) => r.cause === cause && r.kind === kind);
    return el("td", { class: "number" }, found ? `${number(found.count)} (${percent(found.share)})` : "");
  };
  const words = (cause) => t(cause ? `cause.${cause}` : "reject.cause.none");
  return figure(name, t("figure.false-alarms.about", { total: number(total) }),
    bars(causes.map(([cause, count]) => [words(cause), count]), { label: name, format: (count) => `${number(count)} (${percent(count / total)})`, left: 190 }),
    el("div", { class: "wide" }, el("table", { class: "counts", id: "false-alarms" },
      el("thead", {}, el("tr", {}, el("td", {}), kinds.map(([kind]) => el("th", { scope: "col" }, t(`kind.${kind}`))), el("th", { scope: "col" }, t("figure.false-alarms.all")))),
      el("tbody", {}, causes.map(([cause, count]) => el("tr", {}, el("th", { scope: "row" }, words(cause)), kinds.map(([kind]) => cell(cause, kind)), el("td", { class: "number" }, `${number(count)} (${percent(count / total)})`)))),
      el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, t("figure.false-alarms.all")), kinds.map(([, count]) => el("td", { class: "number" }, number(count))), el("td", { class: "number" }, number(total)))))));
}

try {
  const [found, state] = await Promise.all([call("map/figures"), call("map/state")]);
  const labels = Object.fromEntries(state.couverture.map((e) => [e.code, e.label]));
  PLACE.replaceChildren(...found.map((f) => el("section", {}, el("h2", {}, f.departement), stocks(f.years),
    ...(f.periods.length ? [flows(f.periods), ...f.periods.map((p) => matrix(p, labels))] : [el("p", { class: "note" }, t("figure.none"))]),
    latency(f.latency), falseAlarms(f.false_alarms))));
} catch (error) {
  PLACE.replaceChildren(el("p", { class: "problem", role: "alert" }, error.message));
}
