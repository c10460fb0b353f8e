"use strict";
const data = pageData();
const MOST = 200; // rows of the list of queries

function pareto(costs) {
  const svg = frame("milliseconds per query", costs[0].measure);
  const x = scale(costs.map(cost => Math.log(cost.cost)), EDGE + 12, SIZE - 30);
  const y = scale(costs.map(cost => cost.value), SIZE - EDGE - 14, 24);
  const best = costs.filter(cost => cost.best).sort((a, b) => a.cost - b.cost);
  svg.append(make("svg:polyline", {points: best.map(cost => `${x(Math.log(cost.cost))},${y(cost.value)}`).join(" "),
    class: "frontier"}));
  for (const cost of costs) {
    const across = x(Math.log(cost.cost)), up = y(cost.value);
    svg.append(make("svg:circle", {cx: across, cy: up, r: 5}),
      make("svg:text", {x: across + 8, y: up + 4}, `${cost.system} (${cost.cost.toFixed(1)} ms, ${cost.value.toFixed(4)})`));
  }
  document.getElementById("pareto").append(svg);
}

function queries(data) {
  const pick = id => document.getElementById(id);
  const [left, right, measure] = ["left", "right", "measure"].map(pick);
  data.systems.forEach((name, place) => {
    left.append(make("option", {value: place}, name));
    right.append(make("option", {value: place}, name));
  });
  data.measures.forEach(name => measure.append(make("option", {value: name}, name)));
  right.value = Math.min(1, data.systems.length - 1);

  const least = () => Number((/rel=(\d+)/.exec(measure.value) || [0, 1])[1]); // the grade from which the measure counts a document

  function ranking(place, system, other) {
    return data.lists[place][system].map(([doc, score, grade, ranks]) => {
      const [id, text] = data.documents[doc];
      return rankingItem({rank: ranks[system], id, text, score, grade, least: least(), elsewhere: ranks[other]});
    });
  }

  function open(place) {
    const box = pick("query"), sides = make("div", {class: "sides"});
    for (const circle of document.querySelectorAll("#scatter circle")) circle.classList.toggle("chosen", circle.dataset.place === String(place));
    for (const [system, other] of [[+left.value, +right.value], [+right.value, +left.value]]) {
      const value = data.values[measure.value][system][place];
      sides.append(make("div", {}, make("h3", {}, `${data.systems[system]}: ${measure.value} ${value.toFixed(4)}`),
        make("ol", {class: "ranking"}, ...ranking(place, system, other))));
    }
    box.replaceChildren(make("h3", {}, `${data.ids[place]}: ${data.texts[place]}`),
      make("p", {}, `${data.relevant[place]} documents have a grade above 0.`), sides);
  }

  function draw() {
    const across = data.values[measure.value][+left.value], up = data.values[measure.value][+right.value];
    const svg = frame(data.systems[+left.value], data.systems[+right.value]);
    const x = value => EDGE + value * (SIZE - EDGE - 16), y = value => SIZE - EDGE - value * (SIZE - EDGE - 16);
    svg.append(make("svg:path", {d: `M${x(0)} ${y(0)}L${x(1)} ${y(1)}`, class: "axes"}));
    for (const value of [0, 0.5, 1]) {
      svg.append(make("svg:text", {x: x(value), y: y(0) + 18, "text-anchor": "middle"}, String(value)),
        make("svg:text", {x: x(0) - 7, y: y(value) + 4, "text-anchor": "end"}, String(value)));
    }
    const differences = across.map((value, place) => [up[place] - value, place]);
    for (const [, place] of differences) {
      const hasLists = place in data.lists;
      const circle = make("svg:circle", {cx: x(across[place]), cy: y(up[place]), r: 4.5, class: hasLists ? "open" : "closed",
        "data-place": place}, make("svg:title", {}, `${data.ids[place]}: ${data.texts[place]}`));
      if (hasLists) {
        circle.addEventListener("click", () => open(place));
        circle.addEventListener("keydown", event => { if (event.key === "Enter") open(place); });
        circle.setAttribute("tabindex", 0);
      }
      svg.append(circle);
    }
    pick("scatter").replaceChildren(svg);
    const table = pick("list");
    table.tBodies[0].replaceChildren(...differences.filter(([, place]) => place in data.lists)
      .sort((a, b) => Math.abs(b[0]) - Math.abs(a[0])).slice(0, MOST).map(([difference, place]) => {
        const row = make("tr", {}, make("td", {}, data.ids[place]), make("td", {}, data.texts[place].slice(0, 90)),
          make("td", {}, across[place].toFixed(4)), make("td", {}, up[place].toFixed(4)),
          make("td", {}, (difference > 0 ? "+" : "") + difference.toFixed(4)));
        row.addEventListener("click", () => open(place));
        row.style.cursor = "pointer";
        return row;
      }));
    pick("query").replaceChildren();
  }

  pick("list").tHead.rows[0].append(...["query", "text", "across", "up", "difference"].map(name => make("th", {scope: "col"}, name)));
  for (const choice of [left, right, measure]) choice.addEventListener("change", draw);
  draw();
}

if (data.costs.length) pareto(data.costs);
if (data.queries.systems) queries(data.queries);
document.querySelectorAll("table.sortable").forEach(sortable);
