// The map page: what is chosen, and who must know of it.

import { brief, call, el, swatch, t, trouble, later } from "./base.js";
import { alertFilter, KIND_COLOURS, PROBABILITY } from "./layers.js";
import { AlertList } from "./list.js";
import { Detail } from "./detail.js";
import { Exports } from "./exports.js";
import { Stage } from "./stage.js";

const FRESH = 60_000; // ms between two looks whether the map has changed
const by = (id) => document.getElementById(id);
const CONTROLS = by("controls");

function yearsOf(state) {
  return [...new Set(state.departements.flatMap((d) => d.millesimes))].sort((a, b) => a - b);
}

function wanted() {
  return new URLSearchParams(location.hash.slice(1)).get("alert");
}

function remember(id) {
  const hash = new URLSearchParams(location.hash.slice(1));
  if (id) hash.set("alert", id);
  else hash.delete("alert");
  history.replaceState(null, "", `#${hash}`.replaceAll("%2F", "/"));
}

class Page {
  constructor(state) {
    this.state = state;
    this.years = yearsOf(state);
    this.view = {
      theme: "couverture", year: this.years.at(-1), before: this.years.at(-2) ?? this.years[0], opacity: 65,
      image: true, changes: true, alerts: true, isolated: null, filter: ["all"], chosen: null,
    };
    this.list = new AlertList(state, { onOpen: (id) => this.open(id), onFilter: (asked, moved) => this.filtered(asked, moved) });
    this.detail = new Detail(state, {
      onOpen: (id) => this.open(id), onClose: () => this.choose(null), onChanged: () => this.refresh(),
      onCentre: (alert) => this.centre(alert), beside: (id, way) => this.list.beside(id, way),
      map: () => this.stage?.right,
    });
    by("other-language").addEventListener("click", (event) => { event.currentTarget.hash = location.hash; });
    by("where").textContent = state.departements.map((d) => d.code).join(", ");
    this.exports = new Exports(state);
    this.view.filter = alertFilter(this.list.asked);
    this.controls();
    by("legend").open = matchMedia("(min-width: 761px)").matches;
    this.drawLegend();
    this.startMap();
    this.list.load();
    if (wanted()) this.open(wanted());
    setInterval(() => document.hidden || this.refresh(true).catch(() => {}), FRESH);
  }

  startMap() {
    try {
      this.stage = new Stage(this.state, this.view);
    } catch {
      trouble(new Error(t("error.webgl")));
      return;
    }
    this.listen(this.stage.right);
    this.stage.onLeft = (map) => this.listen(map);
    window.millesimed = this.stage; // for the browser's console
  }

  listen(map) {
    map.on("click", (event) => {
      if (this.detail.review.pen) return; // it draws
      const [found] = this.under(map, event.point);
      if (!found) return;
      const { properties, layer } = found;
      if (layer.id.startsWith("alert")) this.open(properties.id);
      else {
        this.choose(null);
        this.detail.polygon(layer.id.slice(layer.id.indexOf("-") + 1), properties);
      }
    });
    map.on("mousemove", later(40, (event) => this.hint(map, event.point)));
    map.on("mouseout", () => { by("hint").textContent = ""; });
  }

  /** What lies under a point, alerts first. */
  under(map, point) {
    const layers = this.state.departements.flatMap((d) => ["alert-points", "alert-fill", "map"].map((name) => `${name}-${d.code}`)).filter((id) => map.getLayer(id));
    const near = [[point.x - 4, point.y - 4], [point.x + 4, point.y + 4]];
    const alerts = map.queryRenderedFeatures(near, { layers: layers.filter((id) => id.startsWith("alert")) });
    return alerts.length ? alerts : map.queryRenderedFeatures(point, { layers });
  }

  /** Colours in words: nobody has to tell fourteen of them apart. */
  hint(map, point) {
    const [found] = this.under(map, point);
    const { kind, cs, us, artif } = found?.properties ?? {};
    const label = (table, code) => (code ? `${code} ${this.state[table].find((e) => e.code === code)?.label ?? ""}` : t("unknown"));
    by("hint").textContent = !found ? "" : kind ? t(`kind.${kind}`) : [label("couverture", cs), label("usage", us), t(`status.${artif ? "artif" : "non artif"}`)].join(" · ");
    map.getCanvas().style.cursor = found ? "pointer" : "";
  }

  controls() {
    const { view } = this;
    const slider = by("year");
    this.range();
    CONTROLS.addEventListener("submit", (event) => event.preventDefault());
    CONTROLS.addEventListener("input", () => {
      view.theme = CONTROLS.elements.theme.value;
      view.year = this.years[slider.value];
      view.opacity = Number(by("opacity").value);
      for (const what of ["image", "changes", "alerts"]) view[what] = by(`show-${what}`).checked;
      this.befores();
      this.draw();
    });
    CONTROLS.addEventListener("change", (event) => {
      if (event.target.name !== "theme") return;
      view.isolated = null;
      this.drawLegend();
    });
    by("swipe").addEventListener("click", () => {
      const on = by("swipe").getAttribute("aria-pressed") !== "true";
      by("swipe").setAttribute("aria-pressed", on);
      by("before-year").disabled = !on;
      this.stage?.compare(on);
      this.labels();
    });
    this.befores();
    this.labels();
  }

  /** The slider over the years there are, on the one that is shown. */
  range() {
    const slider = by("year");
    slider.max = this.years.length - 1;
    slider.value = this.years.indexOf(this.view.year);
    slider.disabled = this.years.length < 2;
  }

  /** The years the left side can show: all but the one on the right. */
  befores() {
    const { years, view } = this;
    const choice = by("before-year");
    const kept = Number(choice.value) || view.before;
    const others = years.filter((y) => y !== view.year);
    if (others.join() !== [...choice.options].map((o) => o.value).join()) {
      choice.replaceChildren(...others.map((y) => el("option", { value: y }, String(y))));
      choice.value = others.includes(kept) ? kept : others.filter((y) => y < view.year).at(-1) ?? others[0];
    }
    view.before = Number(choice.value) || view.year;
  }

  labels() {
    const on = by("swipe").getAttribute("aria-pressed") === "true";
    by("label-before").hidden = !on;
    by("label-before").textContent = this.view.before;
    by("label-after").textContent = this.view.year;
    by("year-shown").textContent = this.view.year;
    by("year").setAttribute("aria-valuetext", this.view.year);
  }

  draw() {
    this.labels();
    this.drawSigns();
    this.stage?.update();
  }

  drawLegend() {
    const { theme } = this.view;
    const entries = this.state[theme] ?? [];
    const words = (e) => (theme === "artificialisation" ? t(`status.${e.label}`) : e.label);
    by("legend-entries").replaceChildren(...entries.map((e) => el("li", {}, el("button", {
      type: "button", "aria-pressed": "false", title: t("legend.isolate", { label: words(e) }), "data-code": e.code,
      onclick: (event) => this.isolate(event.currentTarget),
    }, swatch(e.colour), el("span", {}, brief(words(e))), theme === "artificialisation" ? null : el("code", {}, e.code)))));
    if (theme === "probability") {
      by("legend-entries").replaceChildren(...PROBABILITY.map(([value, colour]) => el("li", {}, swatch(colour), `${Math.round(value * 100)} %`)));
    }
    this.drawSigns();
  }

  drawSigns() {
    const { theme, before, year } = this.view;
    const kinds = theme === "probability" ? [] : Object.entries(KIND_COLOURS).map(([kind, colour]) => {
      const dot = el("span", { class: "dot", "aria-hidden": "true" });
      dot.style.backgroundColor = colour;
      return el("li", {}, dot, `${t(`kind.${kind}`)} (${t("legend.alert")})`);
    });
    by("legend-signs").replaceChildren(...kinds, ...(before < year ? [el("li", {}, el("span", { class: "dashes", "aria-hidden": "true" }), t("legend.change", { year: before }))] : []));
  }

  /** Show one class alone: for whoever cannot tell its colour from its neighbours'. */
  isolate(button) {
    const on = button.getAttribute("aria-pressed") !== "true";
    document.querySelectorAll("#legend-entries button").forEach((b) => b.setAttribute("aria-pressed", "false"));
    button.setAttribute("aria-pressed", on);
    this.view.isolated = on ? button.dataset.code : null;
    this.draw();
  }

  filtered(asked, moved) {
    this.view.filter = alertFilter(asked);
    this.draw();
    if (!moved || !asked.code) return;
    const places = this.state.departements.flatMap((d) => [d, ...d.territories]);
    const place = places.find((p) => p.code === asked.code);
    if (place?.bounds) this.stage?.show(place.bounds, 15);
  }

  async open(id) {
    this.choose(id);
    const alert = await this.detail.alert(id);
    if (alert) this.centre(alert);
  }

  choose(id) {
    this.view.chosen = id;
    remember(id);
    this.draw();
  }

  centre(alert) {
    const flat = alert.geometry.coordinates.flat(alert.geometry.type === "Polygon" ? 1 : 2);
    const [xs, ys] = [flat.map((p) => p[0]), flat.map((p) => p[1])];
    this.stage?.show([Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
  }

  /** Ask for the present state; tiles of what changed get new addresses. */
  async refresh(quietly = false) {
    const state = await call("map/state");
    const same = (d, i) => JSON.stringify(d.versions) === JSON.stringify(this.state.departements[i]?.versions);
    if (quietly && state.departements.every(same)) return;
    Object.assign(this.state, state);
    this.years = yearsOf(state);
    this.range();
    this.befores();
    this.draw();
    await this.list.load();
  }
}

try {
  maplibregl.prewarm(); // its worker starts while the state is on its way
  new Page(await call("map/state"));
} catch (error) {
  trouble(error);
}
