"use strict";
const data = pageData();

// The source of `comparison` from the page's own data.
function reportSource({systems, measures, pairs, entries}) {
  const texts = entries.map(entry => `${entry.id} ${entry.text}`.toLowerCase());
  const negative = text => text.startsWith("+") ? `-${text.slice(1)}` : text.startsWith("-") ? `+${text.slice(1)}` : text;
  const stored = ({left, right, measure}) => pairs[`${left},${right},${measure}`];
  const turned = ({left, right, measure}) => stored({left: right, right: left, measure});

  function values(pair) { // of each entry: left, right, difference
    if (stored(pair)) return stored(pair).rows;
    if (turned(pair)) return turned(pair).rows.map(([left, right, difference]) => [right, left, negative(difference)]);
    return entries.map(entry => ["", "", entry.values[pair.measure][pair.left]]);
  }

  return {
    systems,
    measures,
    why: () => undefined,
    async query(id) {
      const entry = entries.find(one => one.id === id);
      if (!entry) throw new Error(`This page has no rankings of the query ${id}.`);
      return entry;
    },
    async scatter(pair) {
      if (stored(pair)) return stored(pair);
      const plot = turned(pair);
      return {...plot, cells: plot.cells.map(([across, up, queries]) => [up, across, queries])};
    },
    async rows(pair, {order, cell, text, start, count}) {
      const keys = {difference: row => -Math.abs(row[4]), gains: row => -row[4], losses: row => row[4], queries: () => 0};
      const cells = (stored(pair) || turned(pair) || {}).cellOf, words = text.trim().toLowerCase();
      const rows = values(pair).map((figures, place) => [entries[place].id, entries[place].text, ...figures])
        .filter((row, place) => (cell === null || cells[place] === cell) && texts[place].includes(words))
        .sort((a, b) => keys[order](a) - keys[order](b));
      return {total: rows.length, rows: rows.slice(start, start + count)};
    },
  };
}

const pareto = document.getElementById("pareto");
if (pareto) pareto.append(drawFrontier(data.costs, pareto.clientWidth));
if (data.queries) comparison(reportSource(data.queries));
document.querySelectorAll("table.sortable").forEach(sortable);
