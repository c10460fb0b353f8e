"use strict";
// Two systems query by query: a scatter plot, the list of queries, and both rankings of one query.
// The data comes from a source, which reports read from their page and irdistill view asks of its server:
//   systems, measures: names;
//   scatter(pair): {low, high, width, cells: [[across, up, queries], ...]};
//   rows(pair, {order, cell, text, start, count}): {total, rows: [[id, text, left, right, difference], ...]};
//   query(id): {id, text, history, judgments, lists, documents, values: {measure: [text, ...]}, ...};
//   why(id, system, document): an address, or nothing.
// A pair is {left, right, measure} with numbers of systems; differences are right minus left. All but why return promises.
const PLOT = 420, MARGIN = 58, ROW = 58, PAGE = 100;

function drawScatter({low, high, width, cells}, across, up, pick) {
  const span = PLOT - MARGIN - 16, most = Math.max(...cells.map(cell => cell[2]));
  const x = value => MARGIN + (value - low) / (high - low) * span, y = value => PLOT - MARGIN - (value - low) / (high - low) * span;
  const svg = make("svg:svg", {viewBox: `0 0 ${PLOT} ${PLOT}`, role: "img", class: "scatter",
    "aria-label": `Each query by its value for ${across} (across) and ${up} (up); above the line ${up} is better. The list has the same queries.`});
  svg.append(make("svg:path", {d: `M${x(low)} ${y(high)}V${y(low)}H${x(high)}`, class: "axes"}),
    make("svg:path", {d: `M${x(low)} ${y(low)}L${x(high)} ${y(high)}`, class: "zero"}),
    make("svg:text", {x: x((low + high) / 2), y: PLOT - 8, "text-anchor": "middle", class: "name"}, across),
    make("svg:text", {x: 14, y: y((low + high) / 2), "text-anchor": "middle", class: "name",
      transform: `rotate(-90 14 ${y((low + high) / 2)})`}, up));
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(make("svg:text", {x: x(value), y: y(low) + 28, "text-anchor": "middle"}, String(value)),
      make("svg:text", {x: x(low) - 19, y: y(value) + 4, "text-anchor": "end"}, String(value)));
  }
  cells.map((cell, number) => [...cell, number]).sort((a, b) => b[2] - a[2]).forEach(([cellX, cellY, queries, number]) => {
    const side = width / (high - low) * span, kind = cellY > cellX ? "up" : cellY < cellX ? "down" : "even";
    const place = width ? {x: x(cellX) - side / 2, y: y(cellY) - side / 2, width: side, height: side,
      "fill-opacity": .15 + .85 * Math.log1p(queries) / Math.log1p(most)} : {cx: x(cellX), cy: y(cellY), r: Math.max(3.5, 15 * Math.sqrt(queries / most))};
    const shape = make(width ? "svg:rect" : "svg:circle", {...place, class: `cell ${kind}`, "data-cell": number},
      make("svg:title", {}, queries === 1 ? "1 query" : `${queries} queries`));
    shape.addEventListener("click", () => pick(number));
    svg.append(shape);
  });
  return svg;
}

// The elements of a row of two systems.
function differenceRow([id, text, left, right, difference]) {
  return [make("span", {class: "words"}, text || id),
    make("span", {class: `change ${difference[0] === "+" ? "up" : difference[0] === "-" ? "down" : ""}`}, difference),
    make("span", {class: "id"}, id), make("span", {class: "values"}, left ? `${left} → ${right}` : "")];
}

// The query that the address names, as #query=ID; null if it names none. The page keeps its address so that going back opens it again.
function addressedQuery() {
  return new URLSearchParams(location.hash.slice(1)).get("query");
}

// A list of any length: only the rows in sight are elements. A row is an array that begins with the query's id; fill(row) returns
// its elements, open(id) is called for the chosen one. The function that is returned shows other rows.
function queryList(box, fill, open, chosen) {
  const rail = make("div", {role: "presentation", class: "rail"});
  box.replaceChildren(rail);
  const list = {total: 0, active: 0, chosen, pages: new Map(), rows: null};

  function page(number) {
    const {pages} = list;
    if (!pages.has(number)) {
      pages.set(number, null);
      list.rows(number * PAGE, PAGE).then(answer => {
        if (pages !== list.pages) return;
        pages.set(number, answer.rows);
        show();
      }, () => pages.delete(number));
    }
    return pages.get(number);
  }

  function element(place) {
    const row = (page(Math.floor(place / PAGE)) || [])[place % PAGE];
    const item = make("div", {role: "option", id: `option-${place}`, "aria-posinset": place + 1, "aria-setsize": list.total,
      "aria-selected": String(row !== undefined && row[0] === list.chosen), class: place === list.active ? "active" : ""});
    item.style.top = `${place * ROW}px`;
    if (row) {
      item.append(...fill(row));
      item.addEventListener("click", () => { list.active = place; choose(); });
    } else item.append(make("span", {class: "words"}, "…"));
    return item;
  }

  function show() {
    const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 4), last = Math.min(list.total, first + Math.ceil(box.clientHeight / ROW) + 9);
    const places = [];
    for (let place = first; place < last; place++) places.push(place);
    if (list.active < list.total && (list.active < first || list.active >= last)) places.push(list.active);
    rail.style.height = `${list.total * ROW}px`;
    rail.replaceChildren(...places.map(element));
    if (list.total) box.setAttribute("aria-activedescendant", `option-${list.active}`);
    else box.removeAttribute("aria-activedescendant");
  }

  function choose() {
    const row = (page(Math.floor(list.active / PAGE)) || [])[list.active % PAGE];
    if (!row) return;
    list.chosen = row[0];
    history.replaceState(null, "", `#${new URLSearchParams({query: row[0]})}`);
    show();
    open(row[0]);
  }

  function move(place) {
    list.active = Math.max(0, Math.min(list.total - 1, place));
    const top = list.active * ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
    show();
  }

  box.addEventListener("scroll", show);
  box.addEventListener("keydown", event => {
    const screen = Math.max(1, Math.floor(box.clientHeight / ROW) - 1);
    const steps = {ArrowDown: list.active + 1, ArrowUp: list.active - 1, PageDown: list.active + screen, PageUp: list.active - screen,
      Home: 0, End: list.total - 1};
    if (event.key in steps) move(steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") choose();
    else return;
    event.preventDefault();
  });
  // rows(start, count) returns a promise of {total, rows}. The result is their number; the first one is chosen if nothing was.
  return async rows => {
    const pages = new Map();
    Object.assign(list, {pages, rows, active: 0});
    const answer = await rows(0, PAGE);
    if (pages !== list.pages) return null;
    pages.set(0, answer.rows);
    list.total = answer.total;
    box.scrollTop = 0;
    if (list.chosen === null && answer.total) choose();
    show();
    return answer.total;
  };
}

// The rankings of two systems for one query, side by side.
function rankingSides(entry, systems, pair, why) {
  const least = Number((/rel=(\d+)/.exec(pair.measure) || [0, 1])[1]); // the grade from which the measure counts a document
  const rankIn = (ranks, system) => ranks[system] === null ? `not in ${systems[system]}` : `${ranks[system]} in ${systems[system]}`;
  const both = pair.left === pair.right ? [[pair.left, pair.left]] : [[pair.left, pair.right], [pair.right, pair.left]];
  const sides = both.map(([system, other]) => {
    const items = entry.lists[system].map(([number, score, grade, ranks, flag]) => {
      const [id, passage, title, text, spans, titleSpans, before, after] = entry.documents[number];
      return rankingItem({rank: ranks[system], id, passage, title: title === id ? "" : title, text, spans, titleSpans, before, after, score, grade,
        least, elsewhere: other === system ? undefined : ranks[other], why: why(entry.id, system, id), facts: flag ? [flag] : []});
    });
    return make("div", {}, make("h4", {}, systems[system], " ",
      make("span", {class: "muted"}, entry.values ? `${pair.measure} ${entry.values[pair.measure][system]}` : "")),
      items.length ? make("ol", {class: "ranking"}, ...items) : make("p", {class: "muted"}, "This system has no scored document for the query."));
  });
  const relevant = entry.judgments.map(([id, grade, ranks]) => make("li", {}, make("b", {}, id), grade === 1 ? "" : ` (${grade})`,
    make("span", {class: "muted"}, ` rank ${both.map(([system]) => rankIn(ranks, system)).join(", ")}`)));
  const more = entry.relevant - entry.judgments.length;
  if (more > 0) relevant.push(make("li", {class: "muted"}, `and ${more} more`));
  return [make("h3", {}, entry.text || entry.id), make("p", {class: "muted"}, entry.id),
    ...(entry.history.length ? [make("ul", {class: "history", "aria-label": "Turns before"}, ...entry.history.map(turn => make("li", {}, turn)))] : []),
    relevant.length ? make("ul", {class: "judgments", "aria-label": "Relevant documents"}, ...relevant) :
      make("p", {class: "muted"}, "No document is judged relevant."),
    make("div", {class: "sides"}, ...sides)];
}

function comparison(source) {
  const at = id => document.getElementById(id);
  const [measure, left, right, order, find] = ["measure", "left", "right", "order", "find"].map(at);
  const addressed = addressedQuery();
  let cell = null, opened = addressed;
  const pair = () => ({left: Number(left.value), right: Number(right.value), measure: measure.value});

  async function open(id, scroll) {
    opened = id;
    const entry = await source.query(id);
    if (opened !== id) return;
    at("query").replaceChildren(...rankingSides(entry, source.systems, pair(), source.why));
    at("opened").textContent = `Opened: ${entry.text || entry.id}`;
    const below = at("query").offsetTop >= at("queries").offsetTop + at("queries").offsetHeight;
    if (below && scroll) at("query").scrollIntoView({block: "start"});
  }

  let started = false;
  const show = queryList(at("queries"), differenceRow, id => open(id, started), opened);

  async function list() {
    const chosen = pair(), options = {order: order.value, cell, text: find.value};
    for (const shape of document.querySelectorAll("#scatter .cell")) shape.classList.toggle("chosen", shape.dataset.cell === String(cell));
    const total = await show((start, count) => source.rows(chosen, {...options, start, count}));
    if (total === null) return;
    at("count").textContent = (total === 1 ? "1 query" : `${total.toLocaleString("en")} queries`) + (cell === null ? "" : " at this point of the plot");
    at("all").hidden = cell === null && !find.value;
  }

  async function draw() {
    cell = null;
    const chosen = pair();
    const plot = chosen.left === chosen.right ? null : await source.scatter(chosen);
    at("scatter").replaceChildren(plot === null ? "" : drawScatter(plot, source.systems[chosen.left], source.systems[chosen.right], number => {
      cell = cell === number ? null : number;
      list();
    }));
    await list();
    if (opened !== null && (started || opened === addressed)) await open(opened, false).catch(() => {}); // the status line shows it
    started = true;
  }

  for (const choice of [measure, left, right]) choice.addEventListener("change", draw);
  order.addEventListener("change", list);
  let typed = 0;
  find.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(list, 200); });
  at("all").addEventListener("click", () => { cell = null; find.value = ""; list(); at("queries").focus(); });
  return draw();
}
