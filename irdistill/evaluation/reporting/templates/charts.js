"use strict";
// Drawings in SVG, in the colors of the stylesheet.
const SIZE = 420, EDGE = 46;

function frame(labelAcross, labelUp) {
  const svg = make("svg:svg", {width: SIZE + 220, height: SIZE + 10, role: "img"});
  svg.append(make("svg:path", {d: `M${EDGE} 8V${SIZE - EDGE}H${SIZE - 8}`, class: "axes"}),
    make("svg:text", {x: SIZE / 2, y: SIZE - 6, "text-anchor": "middle"}, labelAcross),
    make("svg:text", {x: 12, y: SIZE / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${SIZE / 2})`}, labelUp));
  return svg;
}

function scale(values, from, to) {
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  return value => from + (value - low) / span * (to - from);
}

// Round numbers of an axis, about as many as asked, from the first above low to the last below high.
function roundTicks(low, high, about) {
  const rough = (high - low) / Math.max(1, about) || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough * 0.999);
  const ticks = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + step * 1e-9; number++) ticks.push(number * step);
  return {step, ticks};
}

function tickText(value, step) {
  if (Math.abs(value) < step * 1e-6) return "0";
  if (step < 1e-3 || step >= 1e6) return value.toExponential(1).replace(/\.0e/, "e").replace("e+", "e");
  return value.toLocaleString("en-US", {maximumFractionDigits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9))});
}

// A line chart that grows. Points are [x, y] or [x, y, mean]; with means the values are drawn faintly behind them.
//   title: its heading; across: what x is.
// Returns {element, update(series)}; series is a list of {name, points}. The legend shows the last values, and those at the
// pointer; with the keyboard, the arrow keys, Home and End move through the points.
function lineChart(title, across) {
  const height = 240, edge = {left: 58, right: 14, top: 10, bottom: 36};
  const svg = make("svg:svg", {height, role: "application", tabindex: 0, "aria-roledescription": "line chart",
    "aria-label": `${title} by ${across}; the arrow keys read the values`});
  const legend = make("ul", {class: "legend"}), spoken = make("p", {class: "unseen", role: "status"}), place = make("span", {class: "muted"});
  const element = make("figure", {class: "chart"}, make("figcaption", {}, make("h3", {}, title), place), legend, svg, spoken);
  let series = [], width = 0, at = null, x, y, marks;

  const nearest = (points, value) => {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < value) low = middle; else high = middle;
    }
    return Math.abs(points[low][0] - value) <= Math.abs(points[high][0] - value) ? low : high;
  };
  const longest = () => series.reduce((a, b) => b.points.length > a.points.length ? b : a).points;

  function draw() {
    const drawn = series.filter(entry => entry.points.length);
    svg.replaceChildren();
    if (!drawn.length || width < 80) return;
    const [xs, ys] = [0, 1].map(axis => drawn.flatMap(entry => entry.points.map(point => point[axis])));
    const [lowX, highX, lowY, highY] = [Math.min, Math.max].flatMap(least => [xs, ys].map(values => values.reduce((a, b) => least(a, b))))
      .reduce((all, value, number) => (all[[0, 2, 1, 3][number]] = value, all), []);
    const pad = (highY - lowY) * 0.05 || Math.abs(highY) * 0.05 || 1;
    const bottom = lowY < 0 ? lowY - pad : lowY < highY / 2 ? 0 : Math.max(0, lowY - pad);
    x = scale([lowX, highX === lowX ? lowX + 1 : highX], edge.left, width - edge.right);
    y = scale([bottom, highY + pad], height - edge.bottom, edge.top);
    const up = roundTicks(bottom, highY + pad, 5), right = roundTicks(lowX, highX, Math.max(2, width / 110));
    for (const value of up.ticks) svg.append(make("svg:path", {d: `M${edge.left} ${y(value)}H${width - edge.right}`, class: "grid"}),
      make("svg:text", {x: edge.left - 7, y: y(value) + 4, "text-anchor": "end"}, tickText(value, up.step)));
    for (const value of right.ticks) svg.append(make("svg:text", {x: x(value), y: height - edge.bottom + 16, "text-anchor": "middle"}, tickText(value, right.step)));
    svg.append(make("svg:path", {d: `M${edge.left} ${height - edge.bottom}H${width - edge.right}`, class: "axes"}),
      make("svg:text", {x: (edge.left + width - edge.right) / 2, y: height - 4, "text-anchor": "middle"}, across));
    const line = (points, axis, kind) => make("svg:path", {class: kind, d: points.map((point, number) => `${number ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(point[axis]).toFixed(1)}`).join("")});
    for (const [number, entry] of series.entries()) {
      if (!entry.points.length) continue;
      const group = make("svg:g", {class: `color${number % 6}`}), smooth = entry.points[0].length > 2;
      group.append(line(entry.points, 1, smooth ? "curve faint" : "curve"));
      if (smooth) group.append(line(entry.points, 2, "curve"));
      if (entry.points.length <= 40 && !smooth) for (const point of entry.points) group.append(make("svg:circle", {cx: x(point[0]), cy: y(point[1]), r: 2.5}));
      svg.append(group);
    }
    marks = make("svg:g", {class: "marks"});
    svg.append(marks);
    read();
  }

  // The legend with the values at a place, or the last ones.
  function read() {
    if (!series.length || !longest().length) return "";
    const end = longest().at(-1)[0], value = at === null ? end : at, texts = [];
    marks?.replaceChildren();
    if (at !== null && marks) marks.append(make("svg:path", {d: `M${x(at)} ${edge.top}V${height - edge.bottom}`, class: "axes"}));
    legend.replaceChildren(...series.filter(entry => entry.points.length).map((entry, number) => {
      const point = entry.points[nearest(entry.points, value)];
      if (at !== null && marks) marks.append(make("svg:circle", {cx: x(point[0]), cy: y(point[1]), r: 4, class: `color${number % 6}`}));
      const text = chartNumber(point[1]);
      texts.push(`${entry.name} ${text}`);
      return make("li", {class: `color${number % 6}`}, make("i", {}), `${entry.name} `, make("b", {}, text));
    }));
    place.textContent = `${across} ${value.toLocaleString("en-US", {maximumFractionDigits: 1})}`;
    return `${place.textContent}: ${texts.join(", ")}`;
  }

  const moveTo = value => { at = value; return read(); };
  svg.addEventListener("pointermove", event => {
    if (!x || !series.length) return;
    const points = longest(), share = (event.offsetX - edge.left) / (width - edge.left - edge.right);
    moveTo(points[nearest(points, points[0][0] + share * (points.at(-1)[0] - points[0][0]))][0]);
  });
  svg.addEventListener("pointerleave", () => moveTo(null));
  svg.addEventListener("blur", () => moveTo(null));
  svg.addEventListener("keydown", event => {
    const points = series.length ? longest() : [], here = at === null ? points.length - 1 : nearest(points, at);
    const moves = {ArrowLeft: here - 1, ArrowRight: here + 1, PageUp: here - 10, PageDown: here + 10, Home: 0, End: points.length - 1};
    if (!(event.key in moves) || !points.length) return;
    event.preventDefault();
    spoken.textContent = moveTo(points[Math.min(points.length - 1, Math.max(0, moves[event.key]))][0]);
  });
  new ResizeObserver(() => {
    if (svg.parentNode.clientWidth === width) return;
    width = svg.parentNode.clientWidth;
    svg.setAttribute("width", width);
    draw();
  }).observe(element);
  return {element, update(next) { series = next; draw(); }};
}

// A value as the legend shows it: four decimals, or three digits if it is small.
function chartNumber(value) {
  const size = Math.abs(value);
  if (size >= 1000) return value.toLocaleString("en-US", {maximumFractionDigits: 1});
  if (!size || size >= 0.001) return value.toFixed(4);
  return value.toExponential(2).replace(/e-(\d)$/, "e-0$1");
}
