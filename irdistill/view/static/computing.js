"use strict";
every(1, async () => {
  const {done} = await request(`/api/compare/state${location.search}`);
  if (done) location.reload();
});
