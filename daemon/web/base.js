// Words, numbers, elements and calls: what every part of the page uses.

const WORDS = JSON.parse(document.getElementById("words").textContent);
export const LANG = document.documentElement.lang;
const TOKEN = "millesimed.token";

/** What the page says for a key, its {holes} filled. */
export function t(key, holes = {}) {
  const text = WORDS[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (all, name) => (name in holes ? String(holes[name]) : all));
}

const whole = new Intl.NumberFormat(LANG, { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(LANG, { maximumFractionDigits: 2 });
const exact = new Intl.NumberFormat(LANG, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const share = new Intl.NumberFormat(LANG, { style: "percent", maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat(LANG, { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });

export const number = (value) => whole.format(value);
export const decimal = (value) => fine.format(value);
export const hectares = (m2) => exact.format(m2 / 10_000);
export const percent = (value) => share.format(value);
export const date = (value) => (value ? day.format(new Date(value)) : t("date.unknown"));

/** Square metres as people say them: hectares from one on. */
export function area(m2) {
  return m2 >= 10_000 ? `${decimal(m2 / 10_000)} ha` : `${number(m2)} m²`;
}

/** A label without its examples in brackets. */
export const brief = (label) => label.replace(/ \(.*/, "");

/** An element with attributes and children; text is never taken for markup. */
export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else made.setAttribute(key, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** A square in a colour that comes from data. */
export function swatch(colour) {
  const made = el("span", { class: "swatch", "aria-hidden": "true" });
  made.style.backgroundColor = colour; // through the object model, which the page's policy allows
  return made;
}

/** Where the service is, whatever it is mounted under; never with a query or a fragment. */
export const BASE = new URL(".", document.baseURI).href;

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  drop: () => sessionStorage.removeItem(TOKEN),
};

/** What went wrong, in a sentence for a person. */
export class Refused extends Error {
  constructor(status, detail) {
    const known = ["401", "403", "404", "429", "503"].includes(String(status));
    super(status ? t(known ? `error.${status}` : "error.other", { status }) : t("error.offline"));
    this.status = status;
    this.detail = detail;
  }
}

/** The answer to a call of the service. */
async function asked(path, { method = "GET", body, using = token.get(), signal } = {}) {
  const headers = {};
  if (using) headers.Authorization = `Bearer ${using}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(BASE + path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0);
  }
  if (!answer.ok) throw new Refused(answer.status, (await answer.json().catch(() => ({}))).detail);
  return answer;
}

/** JSON of an address of the service. */
export const call = async (path, options) => (await asked(path, options)).json();

/** A picture of the service as an address for an image: an image by itself would send no token. */
export const picture = async (path) => URL.createObjectURL(await (await asked(path)).blob());

/** Show a problem, or take it away. */
export function trouble(error) {
  const place = document.getElementById("trouble");
  if (!place) return;
  place.hidden = !error;
  place.textContent = error ? error.message : "";
}

/** Call a function once it has not been asked for a while, milliseconds. */
export function later(wait, act) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait);
  };
}
