// Two charts of bars, as SVG elements that read out loud what they show.

const SVG = "http://www.w3.org/2000/svg";
const ROW = 30; // px a bar takes
const WIDTH = Math.min(520, document.documentElement.clientWidth - 32); // text keeps its size on a phone
const NARROW = WIDTH < 440;
const MORE = "#d55e00";
const LESS = "#009e73";
const PLAIN = "#004488";
const MORE_INK = "#9c4400"; // darker than the bars: text needs more contrast
const LESS_INK = "#00694d";

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const text = (content, attributes) => svg("text", { "dominant-baseline": "middle", ...attributes }, content);

function frame(label, height, ...children) {
  return svg("svg", { role: "img", "aria-label": label, viewBox: `0 0 ${WIDTH} ${height}`, class: "chart" }, ...children);
}

/** Horizontal bars from [name, value] pairs; names take `left` pixels. */
export function bars(rows, { label, format, left = 90 }) {
  const most = Math.max(...rows.map((r) => r[1]), 1e-9);
  const room = WIDTH - left - 110;
  return frame(`${label}: ${rows.map(([name, value]) => `${name} ${format(value)}`).join(", ")}`, rows.length * ROW + 8,
    ...rows.flatMap(([name, value], i) => {
      const y = i * ROW + ROW / 2 + 4;
      const width = (value / most) * room;
      return [
        text(name, { x: left - 8, y, "text-anchor": "end" }),
        svg("rect", { x: left, y: y - 10, width: Math.max(width, value ? 1 : 0), height: 20, fill: PLAIN }),
        text(format(value), { x: left + width + 6, y }),
      ];
    }));
}

/** What came to the right of an axis, what went to its left. */
export function pairs(rows, { label, more, less, format }) {
  const left = NARROW ? 0 : 150;
  const step = NARROW ? 50 : ROW; // a phone has the name above the bar
  const middle = left + (WIDTH - left) / 2;
  const room = (WIDTH - left) / 2 - 60;
  const most = Math.max(...rows.flatMap((r) => [r.more, r.less]), 1e-9);
  const said = rows.map((r) => `${r.name}: ${more} ${format(r.more)}, ${less} ${format(r.less)}`).join("; ");
  const bar = (x, y, width, fill) => svg("rect", { x, y: y - 10, width: Math.max(0, width), height: 20, fill });
  return frame(`${label}: ${said}`, rows.length * step + 38,
    text(`${less} (ha)`, { x: middle - 8, y: 14, "text-anchor": "end", fill: LESS_INK, class: "head" }),
    text(`${more} (ha)`, { x: middle + 8, y: 14, fill: MORE_INK, class: "head" }),
    ...rows.flatMap((r, i) => {
      const y = i * step + step - ROW / 2 + 30;
      const [gained, lost] = [(r.more / most) * room, (r.less / most) * room];
      return [
        text(r.name, { x: 0, y: NARROW ? y - 22 : y }),
        bar(middle, y, gained, MORE), bar(middle - lost, y, lost, LESS),
        text(format(r.more), { x: middle + gained + 5, y }),
        text(format(r.less), { x: middle - lost - 5, y, "text-anchor": "end" }),
      ];
    }),
    svg("line", { x1: middle, x2: middle, y1: 26, y2: rows.length * step + 32, stroke: "#1b1b1b" }));
}
