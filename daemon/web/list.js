// The list of alerts and its filters.

import { area, call, date, el, later, percent, t, trouble, token, BASE } from "./base.js";
import { KIND_COLOURS } from "./layers.js";

const FORM = document.getElementById("filters");
const LIST = document.getElementById("list");
const COUNT = document.getElementById("count");
const PAGER = document.getElementById("pager");
const STATES = ["confirmed", "provisional", "first", "finished", "rejected", "superseded"];
const STANDING = ["confirmed", "provisional", "first"];

function tick(name, value, label, checked, colour) {
  const dot = colour ? el("span", { class: "dot", "aria-hidden": "true" }) : null;
  if (dot) dot.style.backgroundColor = colour;
  return el("label", {}, el("input", { type: "checkbox", name, value, checked }), el("span", {}, dot, label));
}

export const title = (alert) => t(`kind.${alert.kinds[0]}`);
export const badge = (state) => el("span", { class: `badge ${state}` }, t(`state.${state}`));

export class AlertList {
  constructor(state, { onOpen, onFilter }) {
    this.state = state;
    this.onOpen = onOpen;
    this.onFilter = onFilter;
    this.page = 1;
    this.alerts = [];
    this.fill();
    const changed = later(150, () => this.changed());
    FORM.addEventListener("input", changed);
    FORM.addEventListener("submit", (event) => event.preventDefault());
    FORM.addEventListener("reset", () => setTimeout(() => this.changed()));
    document.getElementById("previous-page").addEventListener("click", () => this.turn(-1));
    document.getElementById("next-page").addEventListener("click", () => this.turn(1));
    LIST.addEventListener("keydown", (event) => this.walk(event));
  }

  fill() {
    const choice = FORM.elements.territory;
    choice.append(el("option", { value: "" }, t("filter.everywhere")));
    for (const d of this.state.departements) {
      choice.append(el("option", { value: `dep:${d.code}` }, d.code));
      for (const place of d.territories) {
        choice.append(el("option", { value: `ter:${place.code}` }, `${place.name} (${place.code})`));
      }
    }
    document.getElementById("states").append(...STATES.map((s) => tick("state", s, t(`state.${s}`), STANDING.includes(s))));
    document.getElementById("kinds").append(...Object.entries(KIND_COLOURS).map(([k, c]) => tick("kind", k, t(`kind.${k}`), false, c)));
  }

  /** What is asked for, as the map's filter takes it. */
  get asked() {
    const data = new FormData(FORM);
    const [where, code] = String(data.get("territory") || ":").split(":");
    return {
      where, code, states: data.getAll("state"), kinds: data.getAll("kind"),
      minArea: Number(data.get("min_area")) || 0, minProbability: (Number(data.get("min_probability")) || 0) / 100,
      first: data.get("first"), last: data.get("last"), sort: data.get("sort"),
    };
  }

  query(asked) {
    const query = new URLSearchParams();
    if (asked.where === "dep") query.set("departement", asked.code);
    if (asked.where === "ter") query.set("territory", asked.code);
    asked.states.forEach((s) => query.append("state", s));
    asked.kinds.forEach((k) => query.append("kind", k));
    if (asked.minArea) query.set("min_area", asked.minArea);
    if (asked.minProbability) query.set("min_probability", asked.minProbability);
    if (asked.first) query.set("first", asked.first);
    if (asked.last) query.set("last", asked.last);
    query.set("sort", asked.sort);
    return query;
  }

  changed() {
    this.page = 1;
    const { asked } = this;
    this.onFilter(asked, asked.code !== this.code);
    this.code = asked.code;
    return this.load();
  }

  turn(by) {
    this.page += by;
    return this.load().then(() => LIST.focus());
  }

  async load() {
    const { asked } = this;
    this.asking?.abort();
    this.asking = new AbortController();
    const query = this.query(asked);
    query.set("page", this.page);
    try {
      const found = await call(`map/alerts?${query}`, { signal: this.asking.signal });
      this.draw(found);
      this.exports(asked);
      trouble(null);
    } catch (error) {
      if (error.name !== "AbortError") trouble(error);
    }
  }

  draw({ total, page, pages, alerts }) {
    this.alerts = alerts;
    COUNT.textContent = total === 0 ? t("alerts.none") : total === 1 ? t("alerts.count.one") : t("alerts.count", { total });
    LIST.replaceChildren(...alerts.map((alert) => this.row(alert)));
    PAGER.hidden = pages < 2;
    document.getElementById("page-number").textContent = t("pager.page", { page, pages });
    document.getElementById("previous-page").disabled = page <= 1;
    document.getElementById("next-page").disabled = page >= pages;
  }

  row(alert) {
    const place = alert.places[0]?.name ?? alert.departement;
    const dot = el("span", { class: "dot", "aria-hidden": "true" });
    dot.style.backgroundColor = KIND_COLOURS[alert.kinds[0]];
    return el("li", {}, el("button", { type: "button", "data-id": alert.id, onclick: () => this.onOpen(alert.id) },
      el("span", { class: "line" }, el("strong", {}, dot, title(alert)), badge(alert.state)),
      el("span", { class: "line facts" }, el("span", {}, area(alert.area)), el("span", {}, percent(alert.probability)), el("span", {}, date(alert.seen_last)), el("span", { class: "place" }, place)),
    ));
  }

  /** Arrow keys walk the list, as in any list of a desktop. */
  walk(event) {
    const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const items = [...LIST.querySelectorAll("button")];
    const at = items.indexOf(document.activeElement);
    if (way && items.length) {
      items[Math.min(items.length - 1, Math.max(0, at + way))].focus();
      event.preventDefault();
    }
  }

  beside(id, by) {
    const at = this.alerts.findIndex((alert) => alert.id === id);
    return at < 0 ? undefined : this.alerts[at + by]?.id;
  }

  /** Feeds of what is shown, which GIS programs open as they are. */
  exports(asked) {
    const place = document.getElementById("exports");
    const query = new URLSearchParams();
    asked.states.forEach((s) => query.append("state", s));
    asked.kinds.forEach((k) => query.append("kind", k));
    const code = asked.where === "ter" ? asked.code : asked.code || this.state.departements[0]?.code;
    const path = asked.where === "ter" ? `feed/territories/${encodeURIComponent(code)}` : `feed/alerts-${code}`;
    place.replaceChildren(
      el("a", { href: `${BASE}${path}.geojson?${query}`, download: `alertes-${code}.geojson`, id: "export" }, t("export.geojson")),
      " · ", el("a", { href: `${BASE}${path}.atom?${query}` }, t("export.atom")),
    );
  }
}
