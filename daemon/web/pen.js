// Drawing outlines over the map: a picture of its own above it, so that a new style takes nothing away.

const SVG = "http://www.w3.org/2000/svg";
const NEAR = 4; // pixels within which two clicks are one
const STEP = 10; // pixels an arrow key moves the cross-hair, and with Shift:
const FINE = 1;
const ARM = 14; // pixels from the cross-hair's middle to its ends
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const shape = (name, attributes) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

/** One outline being drawn, or several being dragged. `rings` are [lng, lat] lists, not closed.
 *  `onChange(pen, what, about)` is told what happened, a word of `redraw.…`, and what goes in it. */
export class Pen {
  constructor(map, onChange) {
    this.map = map;
    this.onChange = onChange;
    this.parts = [];
    this.open = false;
    this.aims = false; // with the keyboard: the cross-hair is shown
    this.picture = shape("svg", { class: "pen", "aria-hidden": "true" });
    map.getCanvasContainer().append(this.picture);
    this.redraw = () => this.draw();
    this.add = (event) => this.clicked(event);
    this.close = (event) => this.closed(event);
    this.key = (event) => this.pressed(event);
    map.on("move", this.redraw);
    map.on("resize", this.redraw);
    map.on("click", this.add);
    map.on("dblclick", this.close);
    map.doubleClickZoom.disable();
    document.addEventListener("keydown", this.key, true); // before the map and the page hear it
  }

  /** Begin an outline: each click is a corner, Enter or a double click ends it. By keyboard
   *  (`aims`) the arrows move the map under a cross-hair and Space sets a corner there. */
  begin(aims) {
    this.parts = [[[]]];
    this.open = true;
    this.aims = aims;
    this.map.getCanvas().classList.add("drawing");
    this.map.getCanvas().focus({ preventScroll: true });
    this.changed("drawing");
  }

  /** Take over the outline of a GeoJSON geometry, its corners to be dragged. */
  edit(geometry) {
    const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
    this.parts = polygons.map((rings) => rings.map((ring) => ring.slice(0, -1).map((p) => [...p])));
    this.open = false;
    this.changed("drawn");
  }

  /** GeoJSON polygons of what is drawn; none while an outline is open. */
  get polygons() {
    if (this.open) return [];
    return this.parts.filter(([ring]) => ring.length > 2)
      .map((rings) => ({ type: "Polygon", coordinates: rings.map((ring) => [...ring, ring[0]]) }));
  }

  stop() {
    for (const [name, act] of [["move", this.redraw], ["resize", this.redraw], ["click", this.add], ["dblclick", this.close]]) this.map.off(name, act);
    document.removeEventListener("keydown", this.key, true);
    this.map.getCanvas().classList.remove("drawing");
    this.map.doubleClickZoom.enable();
    this.picture.remove();
  }

  clicked({ lngLat, point }) {
    if (!this.open) return;
    this.aims = false;
    this.corners(lngLat, point);
  }

  /** Set a corner, unless it is where the last one is. */
  corners(lngLat, point) {
    const ring = this.parts[0][0];
    const last = ring.at(-1);
    const before = last && this.map.project(last);
    if (before && Math.hypot(before.x - point.x, before.y - point.y) < NEAR) return;
    ring.push([lngLat.lng, lngLat.lat]);
    const metres = last ? Math.round(lngLat.distanceTo({ lng: last[0], lat: last[1] })) : 0;
    this.changed(last ? "corner" : "corner.first", { count: ring.length, metres });
  }

  /** A key while an outline is open; those of a field or a button stay theirs, but for Escape. */
  pressed(event) {
    if (!this.open || event.ctrlKey || event.metaKey || event.altKey) return;
    const act = event.target === this.map.getCanvas() ? this.keys(event) : event.key === "Escape" && (() => this.giveUp());
    if (!act) return;
    event.preventDefault();
    event.stopPropagation(); // Escape would put the alert away, an arrow move the map too
    act();
  }

  keys({ key, shiftKey }) {
    const ring = this.parts[0][0];
    if (key in ARROWS) return () => this.aim(ARROWS[key].map((way) => way * (shiftKey ? FINE : STEP)));
    return {
      " ": () => this.set(),
      Backspace: () => {
        if (ring.pop()) this.changed("back", { count: ring.length });
      },
      Enter: () => (ring.length > 2 ? this.shut() : this.changed("few")),
      Escape: () => this.giveUp(),
    }[key];
  }

  aim(by) {
    this.aims = true;
    this.map.panBy(by, { duration: 0 });
    this.draw();
  }

  set() {
    this.aims = true;
    const centre = this.map.getCenter();
    this.corners(centre, this.map.project(centre));
  }

  giveUp() {
    this.parts = [];
    this.shut("given-up");
  }

  closed(event) {
    if (!this.open || this.parts[0][0].length < 3) return;
    event.preventDefault();
    this.shut();
  }

  shut(what = "drawn") {
    this.open = false;
    this.map.getCanvas().classList.remove("drawing");
    this.changed(what);
  }

  changed(what, about) {
    this.draw();
    if (what) this.onChange(this, what, about);
  }

  draw() {
    const at = (p) => this.map.project(p);
    const path = (ring, ends) => ring.map(at).map(({ x, y }, i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("") + (ends ? "Z" : "");
    const whole = this.parts.flat().map((ring) => path(ring, !this.open)).join("");
    const corners = this.parts.flat().flatMap((ring) => ring.map((p, i) => this.corner(ring, i, at(p))));
    this.picture.replaceChildren(shape("path", { d: whole, class: this.open ? "open" : "closed" }), ...corners, ...(this.open && this.aims ? [this.cross(at(this.map.getCenter()))] : []));
  }

  cross({ x, y }) {
    return shape("path", { class: "cross", d: `M${x - ARM} ${y}h${2 * ARM}M${x} ${y - ARM}v${2 * ARM}` });
  }

  corner(ring, i, { x, y }) {
    const made = shape("circle", { cx: x, cy: y, r: 6 });
    made.addEventListener("pointerdown", (event) => {
      event.stopPropagation();
      event.preventDefault();
      if (this.open) return;
      const { left, top } = this.map.getCanvas().getBoundingClientRect();
      const drag = ({ clientX, clientY }) => {
        const { lng, lat } = this.map.unproject([clientX - left, clientY - top]);
        ring[i] = [lng, lat];
        this.changed();
      };
      document.addEventListener("pointermove", drag);
      document.addEventListener("pointerup", () => document.removeEventListener("pointermove", drag), { once: true });
    });
    for (const name of ["mousedown", "touchstart", "click"]) made.addEventListener(name, (event) => !this.open && event.stopPropagation());
    return made;
  }
}
