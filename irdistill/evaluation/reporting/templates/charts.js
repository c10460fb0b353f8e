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
