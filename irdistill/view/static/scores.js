"use strict";
// While a run is read: how far. The page is loaded again when it is there.
const reading = document.getElementById("reading");
if (reading) {
  every(1, async () => {
    const answer = await request(`/api/scores?${new URLSearchParams({at: reading.dataset.at})}`);
    if (!("read" in answer)) {
      location.reload();
      return new Promise(() => {}); // no further request
    }
    reading.querySelector("progress").value = answer.read;
    document.getElementById("read").textContent = `${answer.read} of ${answer.queries} queries`;
  });
}
