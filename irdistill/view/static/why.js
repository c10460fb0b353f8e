"use strict";
// The page Why: waits until the model is open, then shows the explanation.
const loading = document.getElementById("loading");
if (loading) {
  const address = `/api/why?${new URLSearchParams({at: loading.dataset.at})}`, name = loading.textContent;
  const look = async () => {
    const answer = await request(address);
    if (answer.ready) location.reload();
    else {
      loading.textContent = `${name} ${answer.seconds} s`;
      setTimeout(look, 400);
    }
  };
  look().catch(() => { loading.textContent = ""; });
}
