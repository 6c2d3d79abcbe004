// Lines over time, drawn as SVG: the newest on the right.

const WIDTH = 300;
const HEIGHT = 100;
const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** One plot in a figure: one or two lines of one unit, and marks where something happened. */
export class Plot {
  constructor(figure, windowMs, format) {
    this.svg = figure.querySelector("svg");
    this.output = figure.querySelector("output");
    this.windowMs = windowMs;
    this.format = format;
    this.points = [];
    this.marks = [];
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
  }

  /** Values at a time; null where none is known, which leaves a gap. */
  add(time, values) {
    this.points.push({ time, values });
    this.draw(time);
  }

  mark(time) {
    this.marks.push(time);
  }

  draw(now) {
    const since = now - this.windowMs;
    this.points = this.points.filter((point) => point.time >= since);
    this.marks = this.marks.filter((time) => time >= since);
    const all = this.points.flatMap((point) => point.values).filter((value) => value !== null);
    const most = Math.max(1, ...all) * 1.1;
    const x = (time) => (((time - since) / this.windowMs) * WIDTH).toFixed(1);
    const y = (value) => (HEIGHT - (value / most) * HEIGHT).toFixed(1);
    const shapes = [shape("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT })];
    for (const time of this.marks) shapes.push(shape("line", { class: "mark", x1: x(time), x2: x(time), y1: 0, y2: HEIGHT }));
    const lines = this.points.length ? this.points[0].values.length : 0;
    for (let line = 0; line < lines; line += 1) {
      let path = "";
      let isDrawing = false;
      for (const { time, values } of this.points) {
        const value = values[line];
        if (value !== null) path += isDrawing ? `L${x(time)} ${y(value)}` : `M${x(time)} ${y(value)}h0`;
        isDrawing = value !== null;
      }
      shapes.push(shape("path", { class: line ? "second" : "first", d: path }));
    }
    this.svg.replaceChildren(...shapes);
    const newest = this.points.at(-1);
    if (newest) this.output.textContent = newest.values.map((value) => (value === null ? "–" : this.format(value))).join(" / ");
  }
}
