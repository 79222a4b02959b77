// The style of the map: sources and layers of every département, colours from the service's legend.

import { BASE } from "./base.js";

export const KIND_COLOURS = {
  artificialisation: "#d55e00",
  desartificialisation: "#009e73",
  construction: "#cc79a7",
  demolition: "#56b4e9",
  clearing: "#e69f00",
  other: "#777777",
}; // after Okabe and Ito: told apart by any eye
export const PROBABILITY = [[0.5, "#00204d"], [0.7, "#5a5c6d"], [0.85, "#a69d75"], [1, "#ffea46"]]; // cividis
const OVER_STATES = ["rejected", "superseded", "finished"];
const MAP_FROM = 13;
const NEUTRAL = "#ecece8";

/** Address of tiles; braces stay as they are. */
export const tiles = (path, version) => `${BASE}tiles/${path}?v=${version}`;

/** The image year that goes with a millésime: its own, else the latest before it, else the first. */
export function imageYear(images, year) {
  const years = images.map((i) => i.year);
  return years.filter((y) => y <= year).at(-1) ?? years[0];
}

/** The millésime of a département nearest to the one asked for, not later. */
export const heldYear = (millesimes, year) => millesimes.filter((y) => y <= year).at(-1) ?? millesimes[0];

function fillColour(state, theme) {
  if (theme === "artificialisation") {
    const [no, yes] = ["0", "1"].map((c) => state.artificialisation.find((e) => e.code === c).colour);
    return ["case", ["==", ["get", "artif"], 1], yes, no];
  }
  const [field, entries] = theme === "usage" ? ["us", state.usage] : ["cs", state.couverture];
  return ["match", ["get", field], ...entries.flatMap((e) => [e.code, e.colour]), NEUTRAL];
}

const overAlert = (gone, standing) => ["case", ["in", ["get", "state"], ["literal", OVER_STATES]], gone, standing];
const byKind = ["match", ["get", "kind"], ...Object.entries(KIND_COLOURS).flat(), KIND_COLOURS.other];
const byProbability = ["interpolate", ["linear"], ["get", "probability"], ...PROBABILITY.flat()];

/** Everything to be drawn for one side of the comparison.
 *  view: {theme, year, before, opacity, image, changes, alerts, isolated, filter, chosen}. */
export function style(state, view) {
  const sources = {};
  const layers = [{ id: "ground", type: "background", paint: { "background-color": "#f3f2ee" } }];
  const over = [];
  const shown = (so) => ({ visibility: so ? "visible" : "none" });
  for (const d of state.departements) {
    const year = heldYear(d.millesimes, view.year);
    const raster = (path, version, more) => ({ type: "raster", tileSize: 512, bounds: d.bounds ?? undefined, tiles: [tiles(path, version)], ...more });
    const vector = (path, version, more) => ({ type: "vector", bounds: d.bounds ?? undefined, tiles: [tiles(path, version)], ...more });
    const seen = imageYear(d.images, year);
    const thematic = !["probability", "none"].includes(view.theme);
    const opacity = view.opacity / 100;
    if (seen !== undefined) {
      const first = d.images.find((i) => i.year === seen).first_zoom;
      sources[`image-${d.code}`] = raster(`${d.code}/image/${seen}/{z}/{x}/{y}.webp`, d.versions.images, { minzoom: first, maxzoom: 20 });
      layers.push({ id: `image-${d.code}`, type: "raster", source: `image-${d.code}`, layout: shown(view.image), paint: { "raster-fade-duration": 100 } });
    }
    if (thematic) {
      sources[`overview-${d.code}`] = raster(`${d.code}/overview/${view.theme}/${year}/{z}/{x}/{y}.png`, d.versions.map, { maxzoom: MAP_FROM - 1 });
      layers.push({ id: `overview-${d.code}`, type: "raster", source: `overview-${d.code}`, maxzoom: MAP_FROM, paint: { "raster-opacity": Math.max(opacity, 0.3), "raster-resampling": "nearest", "raster-fade-duration": 0 } });
    }
    sources[`map-${d.code}`] = vector(`${d.code}/map/${year}/{z}/{x}/{y}.mvt`, d.versions.map, { minzoom: MAP_FROM, maxzoom: 16 });
    const isolated = view.isolated && thematic ? ["==", ["to-string", ["get", { usage: "us", artificialisation: "artif" }[view.theme] ?? "cs"]], view.isolated] : null;
    layers.push({
      id: `map-${d.code}`, type: "fill", source: `map-${d.code}`, "source-layer": "map", minzoom: MAP_FROM,
      paint: {
        "fill-color": thematic ? fillColour(state, view.theme) : "#ffffff",
        "fill-opacity": thematic ? (isolated ? ["case", isolated, Math.max(opacity, 0.8), opacity * 0.12] : opacity) : 0,
        "fill-antialias": false,
      },
    });
    layers.push({
      id: `edges-${d.code}`, type: "line", source: `map-${d.code}`, "source-layer": "map", minzoom: 15,
      layout: shown(view.theme !== "none"), paint: { "line-color": "#1b1b1b", "line-opacity": 0.28, "line-width": 0.7 },
    });
    const first = heldYear(d.millesimes, view.before);
    if (first < year) {
      sources[`changes-${d.code}`] = vector(`${d.code}/changes/${first}/${year}/{z}/{x}/{y}.mvt`, d.versions.map, { minzoom: 11, maxzoom: 16 });
      const line = (id, colour, width, dash) => ({
        id: `${id}-${d.code}`, type: "line", source: `changes-${d.code}`, "source-layer": "changes", minzoom: 12, layout: shown(view.changes),
        paint: { "line-color": colour, "line-width": width, ...(dash ? { "line-dasharray": dash } : {}) },
      });
      over.push(line("changes-casing", "#ffffff", 3.4), line("changes", "#3b1c6b", 1.8, [2.5, 1.5]));
    }
    sources[`alerts-${d.code}`] = vector(`${d.code}/alerts/{z}/{x}/{y}.mvt`, d.versions.alerts, { maxzoom: 16 });
    const chosen = ["==", ["get", "id"], view.chosen ?? ""];
    const alert = (id, layer, more) => ({ id: `${id}-${d.code}`, source: `alerts-${d.code}`, "source-layer": layer, filter: view.chosen ? ["any", view.filter, chosen] : view.filter, layout: shown(view.alerts), ...more });
    over.push(
      alert("alert-fill", "alerts", { type: "fill", minzoom: 12, paint: { "fill-color": view.theme === "probability" ? byProbability : byKind, "fill-opacity": view.theme === "probability" ? 0.85 : ["case", chosen, 0.05, 0.18] } }),
      alert("alert-casing", "alerts", { type: "line", minzoom: 12, paint: { "line-color": "#141414", "line-width": ["case", chosen, 7, 4], "line-opacity": overAlert(0.5, 1) } }),
      alert("alert-line", "alerts", { type: "line", minzoom: 12, paint: { "line-color": ["case", chosen, "#ffdd00", "#ffffff"], "line-width": ["case", chosen, 3, 1.6], "line-opacity": overAlert(0.6, 1) } }),
      alert("alert-points", "alerts-points", {
        type: "circle", maxzoom: 15.5,
        paint: {
          "circle-radius": ["interpolate", ["linear"], ["zoom"], 7, 3, 12, 5, 15, 7],
          "circle-color": view.theme === "probability" ? byProbability : byKind,
          "circle-opacity": overAlert(0.35, 1),
          "circle-stroke-color": ["case", chosen, "#ffdd00", "#ffffff"],
          "circle-stroke-width": ["case", chosen, 4, 1.5],
        },
      }),
    );
  }
  return { version: 8, sources, layers: [...layers, ...over] };
}

/** The filter of the list as one of the map; territory and dates are not in the tiles. */
export function alertFilter({ states, kinds, minArea, minProbability }) {
  const parts = ["all"];
  if (states.length) parts.push(["in", ["get", "state"], ["literal", states]]);
  if (kinds.length) parts.push(["in", ["get", "kind"], ["literal", kinds]]);
  if (minArea) parts.push([">=", ["get", "area"], minArea]);
  if (minProbability) parts.push([">=", ["get", "probability"], minProbability]);
  return parts;
}
