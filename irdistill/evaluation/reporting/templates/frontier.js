"use strict";
// Quality against latency, with the sizes of indexes as areas. A point: {system, cost, value, measure, best, index_bytes, figure, latency, size}.
const HIGH = 420, NARROW = 640;

// Round numbers between two ends: 1, 2 and 5 times powers of ten on a logarithmic scale, even steps otherwise.
function ticks(low, high, logarithmic) {
  const numbers = [];
  if (logarithmic) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const digit of [1, 2, 5]) numbers.push(digit * 10 ** power);
    }
  } else {
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(digit => digit * power).find(size => size >= rough);
    for (let number = Math.ceil(low / step) * step; number <= high; number += step) numbers.push(number);
  }
  return numbers.filter(number => number >= low && number <= high).map(number => Number(number.toPrecision(6)));
}

function drawFrontier(points, room) {
  const wide = Math.max(320, Math.min(room, 960)), narrow = wide < NARROW, high = narrow ? HIGH + 64 : HIGH;
  const left = 62, right = narrow ? wide - 20 : wide - 150, top = 24, bottom = HIGH - 48;
  const costs = points.map(point => point.cost), values = points.map(point => point.value);
  const [cheap, dear] = [Math.min(...costs) / 1.25, Math.max(...costs) * 1.25];
  const pad = (Math.max(...values) - Math.min(...values) || Math.abs(values[0]) || 1) * .12;
  const [worst, best] = [Math.min(...values) - pad, Math.max(...values) + pad];
  const x = cost => left + Math.log(cost / cheap) / Math.log(dear / cheap) * (right - left);
  const y = value => bottom - (value - worst) / (best - worst) * (bottom - top);
  const largest = Math.max(...points.map(point => point.index_bytes), 1), radius = bytes => Math.max(4, 22 * Math.sqrt(bytes / largest));
  const svg = make("svg:svg", {viewBox: `0 0 ${wide} ${high}`, role: "img", class: "frontier-plot",
    "aria-label": `${points[0].measure} against milliseconds per query; the table has the same figures.`});
  for (const cost of ticks(cheap, dear, true)) {
    svg.append(make("svg:path", {d: `M${x(cost)} ${top}V${bottom}`, class: "grid"}),
      make("svg:text", {x: x(cost), y: bottom + 17, "text-anchor": "middle"}, String(cost)));
  }
  for (const value of ticks(worst, best, false)) {
    svg.append(make("svg:path", {d: `M${left} ${y(value)}H${right}`, class: "grid"}),
      make("svg:text", {x: left - 8, y: y(value) + 4, "text-anchor": "end"}, String(value)));
  }
  svg.append(make("svg:text", {x: (left + right) / 2, y: HIGH - 8, "text-anchor": "middle", class: "name"}, "milliseconds per query (p50, one thread)"),
    make("svg:text", {x: 14, y: (top + bottom) / 2, "text-anchor": "middle", class: "name", transform: `rotate(-90 14 ${(top + bottom) / 2})`}, points[0].measure));
  const line = points.filter(point => point.best).sort((a, b) => a.cost - b.cost);
  svg.append(make("svg:polyline", {points: line.map(point => `${x(point.cost)},${y(point.value)}`).join(" "), class: "frontier"}));
  const labels = [];
  for (const point of [...points].sort((a, b) => b.index_bytes - a.index_bytes)) {
    const size = radius(point.index_bytes), over = x(point.cost) + size + 8 * point.system.length > wide - 8;
    const label = {point, x: x(point.cost) + (over ? -size - 5 : size + 5), y: y(point.value) + 4, anchor: over ? "end" : "start"};
    svg.append(make("svg:circle", {cx: x(point.cost), cy: y(point.value), r: size, class: point.best ? "best" : "beaten"},
      make("svg:title", {}, `${point.system}: ${point.figure}, ${point.latency}, index ${point.size}`)));
    labels.push(label);
  }
  labels.sort((a, b) => a.y - b.y).forEach((label, place) => { // labels that would overlap move down
    for (const other of labels.slice(0, place)) {
      if (Math.abs(other.x - label.x) < 130 && label.y - other.y < 14) label.y = other.y + 14;
    }
    svg.append(make("svg:text", {x: label.x, y: label.y, "text-anchor": label.anchor, class: label.point.best ? "name strong" : "name"}, label.point.system));
  });
  let across = narrow ? left : wide - 96, down = narrow ? HIGH + 32 : top + 20;
  svg.append(make("svg:text", {x: narrow ? 8 : across - 22, y: narrow ? down + 4 : down, class: "name"}, "index"));
  for (const share of [1, .25, .05]) {
    const size = radius(largest * share);
    if (narrow) across += size + 8;
    else down += size + 12;
    svg.append(make("svg:circle", {cx: across, cy: down, r: size, class: "key"}),
      make("svg:text", {x: narrow ? across + size + 6 : across + 32, y: down + 4}, `${Number((largest * share / 1e6).toPrecision(2))} MB`));
    if (narrow) across += size + 62;
    else down += size;
  }
  return svg;
}
