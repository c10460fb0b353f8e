"use strict";
const elapsed = document.getElementById("elapsed");

every(1, async () => {
  const {done} = await request(`/api/compare/state${location.search}`);
  if (done) location.reload();
  else elapsed.textContent = `${Math.round(performance.now() / 1000)} s`;
});
