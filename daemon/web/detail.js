// One alert, or one polygon, in full.

import { area, call, date, decimal, el, LANG, number, percent, picture, Refused, swatch, t, token } from "./base.js";
import { badge } from "./list.js";
import { Review } from "./review.js";

const PLACE = document.getElementById("detail");
const BROWSE = document.getElementById("browse");

/** The row of the matrix in the page's language. */
export function rule(text) {
  const said = text.replace(/^[^:]+: /, "");
  const [, how, uses] = /^artificialised under (any usage except )?(.+)$/.exec(said) ?? [];
  if (said === "never artificialised") return t("rule.never");
  if (said === "artificialised under any usage") return t("rule.any");
  if (!uses) return text;
  return t(how ? "rule.except" : "rule.under", { uses });
}

const facts = (...pairs) => el("dl", { class: "facts" }, pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

export class Detail {
  constructor(state, { onOpen, onClose, onCentre, onChanged, beside, map }) {
    Object.assign(this, { state, onOpen, onClose, onCentre, onChanged, beside });
    this.review = new Review(state, {
      map, tokenForm: () => this.tokenForm(),
      onDone: async (id, words) => {
        await this.onChanged();
        await this.alert(id, words);
      },
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !PLACE.hidden) this.close();
    });
  }

  label(table, code) {
    const entry = this.state[table].find((e) => e.code === code);
    return code ? [swatch(entry?.colour ?? "#ecece8"), `${entry?.label ?? t("unknown")} `, el("code", {}, code)] : [t("unknown")];
  }

  frame(...content) {
    if (!content.some((part) => part?.classList?.contains("review"))) this.review.stop();
    BROWSE.hidden = true;
    PLACE.hidden = false;
    PLACE.replaceChildren(el("p", { class: "back" }, el("button", { type: "button", class: "quiet", id: "back", onclick: () => this.close() }, `← ${t("back")}`)), ...content);
    PLACE.scrollTop = 0;
    PLACE.focus({ preventScroll: false });
  }

  close() {
    const { id } = this;
    this.review.stop();
    this.id = null;
    PLACE.hidden = true;
    BROWSE.hidden = false;
    this.onClose();
    document.querySelector(`#list button[data-id="${id}"]`)?.focus();
  }

  async alert(id, said) {
    this.id = id;
    let story;
    try {
      story = await call(`alerts/${id}`);
    } catch (error) {
      return this.frame(el("p", { class: "problem", role: "alert" }, error.message));
    }
    if (this.id !== id) return undefined; // another was opened in the meantime
    const { alert, history } = story;
    this.frame(
      el("div", { class: "line" }, el("h2", {}, t(`kind.${alert.kind}`)), badge(alert.state)),
      alert.kinds.length > 1 ? el("p", { class: "note" }, alert.kinds.map((k) => t(`kind.${k}`)).join(" · ")) : null,
      said ? el("p", { class: "said", role: "status" }, said) : null,
      alert.reason ? el("p", { class: "said" }, alert.reason) : null,
      alert.review ? el("p", { class: "note" }, this.decided(alert.review)) : null,
      this.chips(alert),
      facts(
        [t("alert.area"), area(alert.area)], [t("alert.probability"), percent(alert.probability)],
        [t("alert.seen"), alert.seen_first === alert.seen_last ? date(alert.seen_last) : t("alert.seen.value", { first: date(alert.seen_first), last: date(alert.seen_last) })],
        [t("alert.known"), date(alert.known_at)],
        [t("alert.looks"), t("alert.looks.value", { looks: alert.looks, clean: alert.clean_looks })],
        [t("alert.evidence"), decimal(alert.evidence)], [t("alert.rank"), number(alert.rank)],
        ...(alert.places.length ? [[t("filter.territory"), alert.places.map((p) => p.name).join(", ")]] : []),
      ),
      el("p", { class: "buttons" },
        el("button", { type: "button", id: "centre", onclick: () => this.onCentre(alert) }, t("detail.centre")),
        this.step(id, -1, t("detail.previous")), this.step(id, 1, t("detail.next"))),
      el("h3", {}, t("detail.explanation")), this.explanation(alert),
      el("h3", {}, t("detail.acquisitions")), this.images(alert),
      el("h3", {}, t("detail.history")),
      el("ol", { class: "history" }, history.map((step) => el("li", {}, badge(step.state), ` ${date(step.known_at)} – ${percent(step.probability)}, ${area(step.area)}`, step.reason ? el("p", {}, step.reason) : null))),
      el("h3", {}, t("detail.lineage")), ...alert.polygons.map((p) => this.lineage(alert.departement, p)),
      this.review.section(alert),
    );
    return alert;
  }

  /** Who decided what, when, and why. */
  decided({ verdict, by, cause, at }) {
    return [t(`verdict.${verdict}`), by, date(at), cause ? t(`cause.${cause}`) : null].filter(Boolean).join(" · ");
  }

  step(id, by, label) {
    const other = this.beside(id, by);
    return el("button", { type: "button", class: "quiet", disabled: !other, onclick: () => this.onOpen(other) }, label);
  }

  chips(alert) {
    const image = el("img", { class: "chips", alt: t("chips.alt"), width: 1044, height: 556 });
    const link = el("a", { class: "chips", target: "_blank", rel: "noopener" }, image);
    picture(`alerts/${alert.id}/chips.png?lang=${LANG}`).then(
      (address) => { link.href = image.src = address; },
      () => link.replaceWith(el("p", { class: "note" }, t("chips.none"))),
    );
    return link;
  }

  explanation({ before, after }) {
    const row = (name, cell) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, cell(before)), el("td", {}, cell(after)));
    return el("table", { class: "sides", id: "explanation" },
      el("thead", {}, el("tr", {}, el("td", {}), el("th", { scope: "col" }, t("detail.before")), el("th", { scope: "col" }, t("detail.after")))),
      el("tbody", {},
        row(t("cover"), (s) => this.label("couverture", s.code_cs)),
        row(t("usage"), (s) => this.label("usage", s.code_us)),
        row(t("status"), (s) => el("strong", {}, t(`status.${s.status}`))),
        row(t("detail.rule"), (s) => (s.rule ? rule(s.rule) : "–")),
        before.threshold || after.threshold ? row(t("detail.threshold"), (s) => (s.threshold ? t(`threshold.${s.status}`) : "–")) : null,
      ));
  }

  images({ reference_acquisition: reference, acquisitions, sensors, detector }) {
    return el("ul", { class: "plain" },
      reference ? el("li", {}, el("code", {}, reference), ` (${t("detail.reference")})`) : null,
      acquisitions.map((item) => el("li", {}, el("code", {}, item))),
      el("li", {}, `${[...new Set(sensors)].map((s) => t(`sensor.${s}`)).join(", ")} – ${t("detail.detector")} `, el("code", {}, detector)));
  }

  lineage(departement, id) {
    const inside = el("div", {});
    const made = el("details", { class: "lineage" }, el("summary", {}, el("code", {}, id)), inside);
    made.addEventListener("toggle", async () => {
      if (!made.open || inside.childElementCount) return;
      try {
        inside.append(...this.story(await call(`map/${departement}/polygons/${encodeURIComponent(id)}`)));
      } catch (error) {
        inside.append(el("p", { class: "problem" }, error.message));
      }
    });
    return made;
  }

  story({ versions, ancestors, descendants }) {
    const links = [...ancestors, ...descendants].filter((link) => link.parent !== link.child || link.operation !== "node");
    return [
      el("table", {}, el("thead", {}, el("tr", {}, [t("cover"), t("usage"), t("polygon.from"), t("polygon.until")].map((h) => el("th", { scope: "col" }, h)))),
        el("tbody", {}, versions.map((v) => el("tr", {}, el("td", {}, el("code", {}, v.code_cs ?? "–")), el("td", {}, el("code", {}, v.code_us ?? "–")), el("td", {}, date(v.valid_from)), el("td", {}, v.valid_to ? date(v.valid_to) : t("polygon.holds")))))),
      links.length
        ? el("ul", { class: "plain" }, links.map((link) => el("li", {}, el("code", {}, link.parent), ` → ${t(`operation.${link.operation}`)} `, el("code", {}, link.child), ` (${date(link.recorded)}, ${link.detector})`)))
        : el("p", { class: "note" }, t("polygon.lineage.none")),
    ];
  }

  /** What a polygon of the map is: from its tile at once, its story from the service. */
  async polygon(departement, properties) {
    this.id = null;
    const inside = el("div", {}, el("p", { class: "note" }, t("wait")));
    this.frame(
      el("h2", {}, t("polygon")), el("p", {}, el("code", {}, properties.id)),
      facts([t("cover"), this.label("couverture", properties.cs)], [t("usage"), this.label("usage", properties.us)],
        [t("status"), t(`status.${properties.artif ? "artif" : "non artif"}`)]),
      el("h3", {}, t("polygon.versions")), inside);
    try {
      const story = await call(`map/${departement}/polygons/${encodeURIComponent(properties.id)}`);
      const said = story.versions.at(-1)?.rule;
      inside.replaceChildren(...this.story(story), ...(said ? [el("p", { class: "note" }, `${t("detail.rule")} : ${rule(said)}`)] : []));
    } catch (error) {
      inside.replaceChildren(el("p", { class: "problem" }, error.message));
    }
  }

  tokenForm() {
    const answer = el("p", { class: "problem", role: "alert", hidden: true });
    const field = el("input", { id: "token", type: "password", autocomplete: "off", required: true });
    const form = el("form", { id: "token-form" });
    const draw = () => form.replaceChildren(...(token.get()
      ? [el("p", { class: "note" }, `${t("token.kept")} `, el("button", { type: "button", class: "quiet", onclick: () => { token.drop(); draw(); } }, t("token.forget")))]
      : [el("p", { class: "note" }, t("token.about")), el("label", { for: "token" }, t("token")),
        el("div", { class: "pair end" }, field, el("button", { type: "submit" }, t("token.save"))), answer]));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      answer.hidden = true;
      try {
        await call("map/state", { using: field.value.trim() });
        token.set(field.value.trim());
        field.value = "";
        draw();
      } catch (error) {
        answer.textContent = error instanceof Refused ? error.message : t("error.401");
        answer.hidden = false;
      }
    });
    draw();
    return form;
  }
}
