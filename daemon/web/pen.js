// Drawing outlines over the map: a picture of its own above it, so that a new style takes nothing away.

const SVG = "http://www.w3.org/2000/svg";
const NEAR = 4; // pixels within which two clicks are one

const shape = (name, attributes) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

/** One outline being drawn, or several being dragged. `rings` are [lng, lat] lists, not closed. */
export class Pen {
  constructor(map, onChange) {
    this.map = map;
    this.onChange = onChange;
    this.parts = [];
    this.open = false;
    this.picture = shape("svg", { class: "pen", "aria-hidden": "true" });
    map.getCanvasContainer().append(this.picture);
    this.redraw = () => this.draw();
    this.add = (event) => this.clicked(event);
    this.close = (event) => this.closed(event);
    this.key = (event) => event.key === "Enter" && this.open && this.closed(event);
    map.on("move", this.redraw);
    map.on("resize", this.redraw);
    map.on("click", this.add);
    map.on("dblclick", this.close);
    map.doubleClickZoom.disable();
    document.addEventListener("keydown", this.key);
  }

  /** Begin an outline: each click is a corner, Enter or a double click ends it. */
  begin() {
    this.parts = [[[]]];
    this.open = true;
    this.map.getCanvas().classList.add("drawing");
    this.changed();
  }

  /** Take over the outline of a GeoJSON geometry, its corners to be dragged. */
  edit(geometry) {
    const polygons = geometry.type === "Polygon" ? [geometry.coordinates] : geometry.coordinates;
    this.parts = polygons.map((rings) => rings.map((ring) => ring.slice(0, -1).map((p) => [...p])));
    this.open = false;
    this.changed();
  }

  /** GeoJSON polygons of what is drawn; none while an outline is open. */
  get polygons() {
    if (this.open) return [];
    return this.parts.filter(([ring]) => ring.length > 2)
      .map((rings) => ({ type: "Polygon", coordinates: rings.map((ring) => [...ring, ring[0]]) }));
  }

  stop() {
    for (const [name, act] of [["move", this.redraw], ["resize", this.redraw], ["click", this.add], ["dblclick", this.close]]) this.map.off(name, act);
    document.removeEventListener("keydown", this.key);
    this.map.getCanvas().classList.remove("drawing");
    this.map.doubleClickZoom.enable();
    this.picture.remove();
  }

  clicked({ lngLat, point }) {
    if (!this.open) return;
    const ring = this.parts[0][0];
    const last = ring.length ? this.map.project(ring.at(-1)) : null;
    if (last && Math.hypot(last.x - point.x, last.y - point.y) < NEAR) return;
    ring.push([lngLat.lng, lngLat.lat]);
    this.changed();
  }

  closed(event) {
    if (!this.open || this.parts[0][0].length < 3) return;
    event.preventDefault();
    this.open = false;
    this.map.getCanvas().classList.remove("drawing");
    this.changed();
  }

  changed() {
    this.draw();
    this.onChange(this);
  }

  draw() {
    const at = (p) => this.map.project(p);
    const path = (ring, ends) => ring.map(at).map(({ x, y }, i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("") + (ends ? "Z" : "");
    const whole = this.parts.flat().map((ring) => path(ring, !this.open)).join("");
    const corners = this.parts.flat().flatMap((ring) => ring.map((p, i) => this.corner(ring, i, at(p))));
    this.picture.replaceChildren(shape("path", { d: whole, class: this.open ? "open" : "closed" }), ...corners);
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
