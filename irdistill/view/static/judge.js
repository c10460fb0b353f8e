"use strict";
// The pairs to judge. Judgments are sent one after another; the next pair is there already.
const started = pageData();
const choice = started.choice;
const parts = id => document.getElementById(id);
let pairs = [], sent = new Set(), chain = Promise.resolve(), reading = false, shown = "", known = 0;

const keyOf = pair => JSON.stringify([pair.query_id, pair.doc_id]);

function showChoice() {
  const source = parts("source");
  for (const field of document.querySelectorAll("[data-for]")) field.hidden = field.dataset.for !== source.value;
}

function showProgress(answer) {
  const read = answer.complete ? "" : ` in ${answer.queries_read} of ${answer.queries} queries`;
  parts("progress").textContent = `${answer.done} of ${answer.total} pairs${read} judged`;
  parts("judged").max = Math.max(1, answer.total);
  parts("judged").value = answer.done;
}

function showText(name, part, document_) {
  const passage = document_.passage === null ? "" : ` · passage ${document_.passage}`;
  parts(`${name}-label`).textContent = `Document ${document_.doc_id}${passage}${part}`;
  parts(`${name}-title`).replaceChildren(...highlighted(document_.title, document_.title_spans));
  parts(`${name}-title`).hidden = !document_.title;
  const more = document_.more ? [` … (${document_.more} more characters)`] : [];
  parts(`${name}-text`).replaceChildren(...highlighted(document_.text, document_.spans), ...more);
}

function showPair() {
  const pair = pairs[0];
  parts("work").hidden = !pair;
  if (!pair) return;
  parts("waiting").hidden = parts("end").hidden = true;
  if (shown === keyOf(pair)) return;
  shown = keyOf(pair);
  parts("known").open = false;
  parts("query-label").textContent = `Query ${pair.query_id}`;
  parts("query-text").textContent = pair.query;
  parts("history").hidden = !pair.history.length;
  parts("history").querySelector("dl").replaceChildren(
    ...pair.history.flatMap(turn => [make("dt", {}, turn.role), make("dd", {}, turn.text)]));
  showText("document", "", pair);
  parts("reason").textContent = pair.reason;
  parts("facts").replaceChildren(...pair.facts.map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  parts("why").href = pair.why;
  parts("known").hidden = !pair.known;
  if (pair.known) showText("known", pair.known.facts.map(([name, value]) => ` · ${name} ${value}`).join(""), pair.known);
  parts("document-text").scrollTop = 0;
  if (parts("pair").getBoundingClientRect().top < 0) parts("work").scrollIntoView();
}

// The server's pairs, without those that were judged here meanwhile.
function take(answer) {
  showProgress(answer);
  pairs = answer.pairs.filter(pair => !sent.has(keyOf(pair)));
  showPair();
  const more = answer.queries_read > known;
  known = answer.queries_read;
  if (pairs.length) {
    if (more && !answer.complete) setTimeout(load, 1000); // the count grows while the run is read
    return;
  }
  parts("waiting").hidden = answer.complete;
  if (!answer.complete) load();
  else if (!sent.size) {
    parts("end").textContent = answer.total
      ? `Done: all ${answer.total} pairs are judged.`
      : `No such pairs: the judgments and the ${choice.source === "disagreements" ? "runs" : "run"} do not contradict each other here.`;
    parts("end").hidden = false;
  }
}

async function load() {
  if (reading) return;
  reading = true;
  try {
    const answer = await request(`/api/judge/pairs?${new URLSearchParams(choice)}`);
    if (!answer.opening) take(answer);
  } catch {
    parts("waiting").hidden = true; // the status line says why
  } finally {
    reading = false;
  }
  if (!pairs.length && !parts("waiting").hidden) setTimeout(load, 500);
}

function send(work) {
  chain = chain.then(work).catch(async error => {
    sent.clear();
    await load();
    showStatus(error.message); // the pair is shown again
  });
}

function judge(grade) {
  const pair = pairs.shift();
  if (!pair) return;
  sent.add(keyOf(pair));
  if (pairs.length) showPair();
  else parts("work").hidden = true;
  send(async () => {
    const answer = await request("/api/judge/judgment", {...choice, query_id: pair.query_id, doc_id: pair.doc_id, grade});
    sent.delete(keyOf(pair));
    take(answer);
  });
}

function undo() {
  send(async () => {
    const answer = await request("/api/judge/undo", choice);
    take(answer);
    if (!answer.undone) showStatus("There is nothing to undo in this queue.");
  });
}

function act(button) {
  if ("grade" in button.dataset) judge(Number(button.dataset.grade));
  else if ("skip" in button.dataset) judge(null);
  else undo();
}

parts("source")?.addEventListener("change", showChoice);
if (parts("source")) showChoice();
if (started.started) {
  const buttons = [...document.querySelectorAll(".judge-keys button")];
  for (const button of buttons) button.addEventListener("click", () => act(button));
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.closest("input, select, textarea")) return;
    const button = buttons.find(each => each.getAttribute("aria-keyshortcuts") === event.key.toLowerCase());
    if (!button) return;
    event.preventDefault();
    act(button);
  });
  // what was judged and is not on the disk yet would be lost
  window.addEventListener("beforeunload", event => { if (sent.size) event.preventDefault(); });
  load();
}
