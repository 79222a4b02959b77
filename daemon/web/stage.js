// The two maps: after, and before it under a divider.

import { style } from "./layers.js";
import { BASE, t, token, trouble, Refused } from "./base.js";

const LEFT = document.getElementById("map-before");
const RIGHT = document.getElementById("map-after");
const DIVIDER = document.getElementById("divider");
const STEP = 4; // per cent a key moves the divider

/** Tiles of this service carry the token, nothing else does. */
function signed(url) {
  const known = token.get();
  return known && url.startsWith(BASE) ? { url, headers: { Authorization: `Bearer ${known}` } } : { url };
}

export class Stage {
  constructor(state, view) {
    this.state = state;
    this.view = view;
    this.at = 50;
    this.right = this.make(RIGHT, this.side(false), true);
    this.left = null;
    this.divide();
  }

  make(container, sheet, hash) {
    const map = new maplibregl.Map({
      container, style: sheet, hash: hash ? "map" : false, attributionControl: false, maxZoom: 20, minZoom: 4,
      dragRotate: false, pitchWithRotate: false, touchPitch: false, transformRequest: signed,
      bounds: this.bounds() ?? undefined, fitBoundsOptions: { padding: 30 },
      locale: { "Map.Title": t("map.region") },
    });
    map.touchZoomRotate.disableRotation();
    map.keyboard.disableRotation();
    if (hash) this.timed(map);
    map.on("error", ({ error }) => {
      if (!(error?.status >= 400) || error.status === 404) return;
      trouble(new Refused(error.status));
      setTimeout(() => trouble(null), 10_000);
    });
    return map;
  }

  /** Two marks, which the bench reads: `map-meaningful` with the first frame in which every tile of
   *  the map, of its changes and alerts that the view needs is drawn, `map-painted` once the images
   *  are there too and nothing is left to do. */
  timed(map) {
    const drawn = () => {
      const sources = map.getStyle()?.sources; // none until the style is read
      if (!sources || !Object.keys(sources).every((id) => id.startsWith("image-") || map.isSourceLoaded(id))) return;
      performance.mark("map-meaningful");
      map.off("render", drawn);
    };
    map.on("render", drawn);
    map.once("idle", () => performance.mark("map-painted"));
  }

  /** All départements together. */
  bounds() {
    const known = this.state.departements.map((d) => d.bounds).filter(Boolean);
    if (!known.length) return null;
    const of = (i, pick) => pick(...known.map((b) => b[i]));
    return [[of(0, Math.min), of(1, Math.min)], [of(2, Math.max), of(3, Math.max)]];
  }

  side(before) {
    const { view } = this;
    return style(this.state, before ? { ...view, year: view.before, changes: false } : view);
  }

  /** Draw what the view says now; only what differs is touched. */
  update() {
    this.right.setStyle(this.side(false), { diff: true });
    this.left?.setStyle(this.side(true), { diff: true });
  }

  compare(on) {
    LEFT.hidden = DIVIDER.hidden = !on;
    if (on && !this.left) {
      this.left = this.make(LEFT, this.side(true), false);
      this.left.jumpTo(this.camera(this.right));
      const follow = (from, to) => from.on("move", (event) => {
        if (!event.synced) to.jumpTo(this.camera(from), { synced: true });
      });
      follow(this.left, this.right);
      follow(this.right, this.left);
      this.onLeft?.(this.left);
    }
    if (on) {
      this.left.resize();
      this.left.jumpTo(this.camera(this.right), { synced: true });
      this.left.setStyle(this.side(true), { diff: true });
    }
    this.place(this.at);
  }

  camera(map) {
    return { center: map.getCenter(), zoom: map.getZoom(), bearing: 0, pitch: 0 };
  }

  /** Put the divider at a share of the width, per cent. */
  place(at) {
    this.at = Math.min(100, Math.max(0, at));
    DIVIDER.style.left = `${this.at}%`;
    DIVIDER.setAttribute("aria-valuenow", Math.round(this.at));
    LEFT.style.clipPath = `inset(0 ${100 - this.at}% 0 0)`;
  }

  divide() {
    const move = (event) => {
      const { left, width } = RIGHT.getBoundingClientRect();
      this.place(((event.clientX - left) / width) * 100);
    };
    DIVIDER.addEventListener("pointerdown", (event) => {
      DIVIDER.setPointerCapture(event.pointerId);
      DIVIDER.addEventListener("pointermove", move);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      DIVIDER.addEventListener(end, () => DIVIDER.removeEventListener("pointermove", move));
    }
    DIVIDER.addEventListener("keydown", (event) => {
      const keys = { ArrowLeft: this.at - STEP, ArrowRight: this.at + STEP, Home: 0, End: 100 };
      if (event.key in keys) {
        this.place(keys[event.key]);
        event.preventDefault();
      }
    });
  }

  /** Show some ground, [west, south, east, north]. */
  show(bounds, maxZoom = 17.5) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.right.fitBounds([bounds.slice(0, 2), bounds.slice(2)], { padding: 90, maxZoom, duration: still ? 0 : 700 });
  }
}
