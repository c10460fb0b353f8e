"use strict";
const compared = pageData();

// The source of `comparison` from the server.
function compareSource({systems, measures, keys}) {
  const ask = (name, values) => {
    const parameters = new URLSearchParams(location.search);
    for (const [key, value] of Object.entries(values)) if (value !== null) parameters.set(key, value);
    return request(`/api/compare/${name}?${parameters}`);
  };
  return {
    systems,
    measures,
    why: (query, system, doc) => `/why?${new URLSearchParams({at: keys[system], query_id: query, doc})}`,
    scatter: pair => ask("scatter", pair),
    rows: (pair, options) => ask("rows", {...pair, ...options}),
    query: id => ask("query", {query_id: id}),
  };
}

comparison(compareSource(compared));
document.querySelectorAll("table.sortable").forEach(sortable);
