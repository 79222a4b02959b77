// Deciding on an alert: it is right, it is none, or it lies otherwise.

import { brief, call, el, t, token } from "./base.js";
import { Pen } from "./pen.js";

const CAUSES = ["shadow", "season", "cloud", "misregistration", "temporary", "vehicles", "water-level", "map-wrong", "other"];
const PATCHED = /^(pva|spot|pleiades)$/;

/** Where something went wrong: what the service says of it, or how to get a token. */
function said(error) {
  const known = [401, 403].includes(error.status) && !(error.status === 403 && token.get() && /only;/.test(error.detail ?? ""));
  return !token.get() ? t("token.about") : known || !error.detail ? error.message : error.detail;
}

export class Review {
  constructor(state, { map, tokenForm, onDone }) {
    Object.assign(this, { state, map, tokenForm, onDone });
    this.pen = null;
  }

  /** Put the pen away. */
  stop() {
    this.pen?.stop();
    this.pen = null;
  }

  /** What a person can do about an alert; null where it is settled. */
  section(alert) {
    this.stop();
    if (alert.state === "superseded" || (alert.state === "rejected" && alert.review)) return null;
    return el("section", { class: "review", "aria-label": t("review") },
      el("h3", {}, t("review")), this.tokenForm(),
      alert.review?.verdict === "accepted" ? null : this.accept(alert),
      this.reject(alert), this.redraw(alert));
  }

  /** A form that sends something; whatever is wrong stands in it. */
  form(attributes, content, label, kind, send) {
    const answer = el("p", { class: "problem", role: "alert", hidden: true });
    const submit = async (event) => {
      event.preventDefault();
      answer.hidden = true;
      try {
        await send();
      } catch (error) {
        answer.textContent = said(error);
        answer.hidden = false;
      }
    };
    return el("form", { ...attributes, onsubmit: submit }, content, answer, el("button", { type: "submit", class: kind }, label));
  }

  accept(alert) {
    return this.form({ id: "accept" }, [el("p", { class: "note" }, t("accept.about"))], t("accept"), undefined, async () => {
      await call(`alerts/${alert.id}/accept`, { method: "POST" });
      await this.onDone(alert.id, t("accept.done"));
    });
  }

  reject(alert) {
    const reason = el("textarea", { id: "reason", required: true, maxlength: 500, rows: 2 });
    const cause = el("select", { id: "cause" }, el("option", { value: "" }, t("reject.cause.none")), CAUSES.map((c) => el("option", { value: c }, t(`cause.${c}`))));
    const drawn = alert.sensors.some((s) => PATCHED.test(s));
    const restore = el("input", { type: "checkbox", id: "restore" });
    const content = [
      el("h4", {}, t("reject")), el("p", { class: "note" }, t("reject.about")),
      el("label", { for: "cause" }, t("reject.cause")), cause,
      el("label", { for: "reason" }, t("reject.reason")), reason,
      drawn ? el("label", { class: "tick" }, restore, ` ${t("reject.restore")}`) : null,
    ];
    return this.form({ id: "reject" }, content, t("reject.send"), "grave", async () => {
      const body = { reason: reason.value, restore: restore.checked };
      if (cause.value) body.cause = cause.value;
      await call(`alerts/${alert.id}/reject`, { method: "POST", body });
      await this.onDone(alert.id, t("reject.done"));
    });
  }

  choice(id, table, chosen) {
    return el("select", { id, required: true }, this.state[table].map((e) => el("option", { value: e.code, selected: e.code === chosen }, `${e.code} ${brief(e.label)}`)));
  }

  redraw(alert) {
    const cover = this.choice("redraw-cs", "couverture", alert.after.code_cs);
    const usage = this.choice("redraw-us", "usage", alert.after.code_us);
    const source = el("input", { id: "redraw-source", required: true, maxlength: 100, value: t("redraw.source.value") });
    const status = el("p", { class: "note", role: "status" }, t("redraw.about"));
    const pen = () => {
      this.stop();
      this.pen = new Pen(this.map(), (p, what, about) => {
        status.textContent = t(`redraw.${what}`, about);
        if (!p.open && p.aims) document.getElementById("redraw-new")?.focus(); // where the keys came from
        if (what === "given-up") this.stop();
      });
      return this.pen;
    };
    const button = (id, words, act) => el("button", { type: "button", id, disabled: !this.map(), onclick: act }, words);
    const content = [
      el("h4", {}, t("redraw")), status,
      el("p", { class: "buttons" }, button("redraw-edit", t("redraw.edit"), () => pen().edit(alert.geometry)), button("redraw-new", t("redraw.new"), (event) => pen().begin(event.detail === 0))),
      el("label", { for: "redraw-cs" }, t("cover")), cover, el("label", { for: "redraw-us" }, t("usage")), usage,
      el("label", { for: "redraw-source" }, t("redraw.source")), source,
    ];
    return this.form({ id: "redraw" }, content, t("redraw.send"), undefined, async () => {
      const polygons = this.pen?.polygons ?? [];
      if (!polygons.length) {
        status.textContent = t("redraw.nothing");
        return;
      }
      const properties = { code_cs: cover.value, code_us: usage.value };
      const body = {
        type: "FeatureCollection", alert: alert.id, departement: alert.departement, source: source.value,
        observed: `${alert.seen_last}T12:00:00Z`, features: polygons.map((geometry) => ({ type: "Feature", geometry, properties })),
      };
      const { id } = await call("corrections", { method: "POST", body });
      this.stop();
      status.textContent = t("redraw.done", { id });
    });
  }
}
