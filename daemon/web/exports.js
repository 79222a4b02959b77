// Files to take away: what is wanted, how far it is, where it can be fetched.

import { BASE, call, decimal, el, percent, t, token } from "./base.js";

const POLL = 1_000; // ms between two looks at a job
const KEPT = "millesimed.export";
const VECTOR = ["gpkg", "shp", "fgb", "geoparquet"];
const FORMATS = { map: VECTOR, differential: VECTOR, corrective: VECTOR, changelog: VECTOR, raster: ["cog", "geotiff"] };
const TWO_YEARS = ["differential", "corrective", "changelog"];
const THEMES = ["couverture", "usage", "artificialisation"];
const OPEN = ["queued", "running"];
const CRS = { "EPSG:2154": "Lambert-93 (EPSG:2154)", "EPSG:4326": "WGS 84 (EPSG:4326)", "EPSG:3857": "Web Mercator (EPSG:3857)" };

const option = (value, text = value) => el("option", { value }, String(text));
const field = (name, label, control) => el("div", { class: "field", "data-for": name }, el("label", { for: `take-${name}` }, label), control);

export class Exports {
  constructor(state) {
    this.state = state;
    this.place = document.getElementById("take");
    this.form = el("form", { id: "take-form", "aria-label": t("take") });
    this.said = el("p", { role: "status", id: "take-said" });
    this.bar = el("progress", { id: "take-progress", max: "1", value: "0", "aria-label": t("take.progress"), hidden: true });
    this.result = el("p", { id: "take-result" });
    this.build();
    this.place.append(this.form, this.bar, this.said, this.result);
    this.form.addEventListener("change", () => this.fit());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    this.fit();
    const kept = sessionStorage.getItem(KEPT);
    if (kept) this.follow(kept, true);
  }

  select(name, entries) {
    return el("select", { id: `take-${name}`, name }, entries);
  }

  build() {
    const places = this.state.departements.flatMap((d) => [
      option(`${d.code}/`, d.code),
      ...d.territories.map((p) => option(`${d.code}/${p.code}`, `${p.name} (${p.code})`)),
    ]);
    const years = [...new Set(this.state.departements.flatMap((d) => d.millesimes))].sort((a, b) => a - b);
    const twice = years.map((year) => [option(year), option(year), option(year)]);
    const products = Object.keys(FORMATS).filter((p) => years.length > 1 || !TWO_YEARS.includes(p));
    this.form.append(
      field("territory", t("filter.territory"), this.select("territory", places)),
      field("product", t("take.product"), this.select("product", products.map((p) => option(p, t(`take.product.${p}`))))),
      field("millesime", t("millesime"), this.select("millesime", twice.map((y) => y[0]))),
      field("before", t("take.before"), this.select("before", twice.map((y) => y[1]).slice(0, -1))),
      field("after", t("take.after"), this.select("after", twice.map((y) => y[2]).slice(1))),
      field("theme", t("theme"), this.select("theme", THEMES.map((name) => option(name, t(`theme.${name}`))))),
      field("resolution", t("take.resolution"), el("input", { id: "take-resolution", name: "resolution", type: "number", min: "0.5", max: "1000", step: "0.5", value: "10", required: true })),
      field("format", t("take.format"), this.select("format", [])),
      field("crs", t("take.crs"), this.select("crs", [])),
      el("div", { class: "field" }, this.start = el("button", { type: "submit" }, t("take.start"))),
    );
    for (const name of ["millesime", "after"]) this.form.elements[name].value = years.at(-1);
  }

  /** Show what the chosen product takes, and nothing else. */
  fit() {
    const product = this.form.elements.product.value;
    const two = TWO_YEARS.includes(product);
    const shown = { millesime: !two, before: two, after: two, theme: product === "raster", resolution: product === "raster" };
    for (const [name, on] of Object.entries(shown)) {
      this.form.querySelector(`[data-for=${name}]`).hidden = !on;
      this.form.elements[name].disabled = !on;
    }
    this.offer("format", FORMATS[product], (f) => t(`take.format.${f}`));
    const code = this.form.elements.territory.value.split("/")[0];
    this.offer("crs", this.state.departements.find((d) => d.code === code)?.crs ?? [], (crs) => CRS[crs] ?? crs);
  }

  /** Other choices, where they are others. */
  offer(name, values, text) {
    const select = this.form.elements[name];
    const known = [...select.options].map((o) => o.value);
    if (known.join() !== values.join()) select.replaceChildren(...values.map((v) => option(v, text(v))));
  }

  asked() {
    const given = Object.fromEntries(new FormData(this.form));
    const [departement, territory] = given.territory.split("/");
    for (const name of ["millesime", "before", "after", "resolution"]) if (name in given) given[name] = Number(given[name]);
    return { ...given, departement, territory: territory || null };
  }

  async ask() {
    this.start.disabled = true;
    this.result.replaceChildren();
    try {
      const job = await call("exports", { method: "POST", body: this.asked() });
      this.follow(job.id, false);
    } catch (error) {
      this.wrong(error);
    }
  }

  /** Look at a job until it has an end; one of an earlier view may be gone. */
  async follow(id, quietly) {
    sessionStorage.setItem(KEPT, id);
    this.start.disabled = true;
    try {
      let job = await call(`exports/${id}`);
      if (quietly) this.place.open = true;
      for (; OPEN.includes(job.state); job = await call(`exports/${id}`)) {
        this.show(job);
        await new Promise((done) => { setTimeout(done, POLL); });
      }
      this.show(job);
    } catch (error) {
      sessionStorage.removeItem(KEPT);
      if (quietly && error.status === 404) this.start.disabled = false;
      else this.wrong(error);
    }
  }

  show(job) {
    const open = OPEN.includes(job.state);
    this.start.disabled = open;
    this.bar.hidden = !open;
    this.bar.value = job.progress;
    const share = job.state === "running" ? ` ${percent(job.progress)}` : "";
    this.said.textContent = t(`take.state.${job.state}`) + share + (job.error ? ` ${job.error}` : "");
    if (open && !this.result.querySelector("button")) {
      this.result.replaceChildren(el("button", { type: "button", class: "quiet", id: "take-cancel", onclick: () => this.cancel(job.id) }, t("take.cancel")));
    } else if (!open) this.result.replaceChildren(...(job.state === "done" ? [this.link(job)] : []));
  }

  link(job) {
    const size = t("take.size", { size: decimal(job.bytes / 1e6) });
    return el("a", { id: "take-file", href: `${BASE}exports/${job.id}/file`, download: job.file, onclick: (event) => this.fetched(event, job) }, `${job.file} (${size})`);
  }

  /** A link sends no token: where one is needed the file comes through the page. */
  async fetched(event, job) {
    if (!token.get()) return;
    event.preventDefault();
    try {
      const answer = await fetch(`${BASE}exports/${job.id}/file`, { headers: { Authorization: `Bearer ${token.get()}` } });
      if (!answer.ok) throw new Error(t("error.other", { status: answer.status }));
      const address = URL.createObjectURL(await answer.blob());
      el("a", { href: address, download: job.file }).click();
      setTimeout(() => URL.revokeObjectURL(address), POLL);
    } catch (error) {
      this.wrong(error);
    }
  }

  async cancel(id) {
    try {
      await call(`exports/${id}`, { method: "DELETE" });
    } catch (error) {
      if (error.status !== 409) this.wrong(error);
    }
  }

  wrong(error) {
    this.start.disabled = false;
    this.bar.hidden = true;
    this.said.textContent = error.status === 422 ? error.detail : error.message;
  }
}
