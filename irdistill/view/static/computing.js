"use strict";
const elapsed = document.getElementById("elapsed"), hasQueries = Boolean(document.getElementById("computing").dataset.queries);

every(1, async () => {
  const {queries, done} = await request(`/api/compare/state${location.search}`);
  if (done || (queries && !hasQueries)) location.reload();
  else elapsed.textContent = `${Math.round(performance.now() / 1000)} s`;
});
