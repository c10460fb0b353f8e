"use strict";
const shownRun = pageData();

function runQueries({keys, names}) {
  const [at, beside = ""] = keys, pair = {left: 0, right: keys.length - 1, measure: ""};
  const element = id => document.getElementById(id), find = element("find");
  const ask = (name, values) => request(`/api/run/${name}?${new URLSearchParams({at, beside, ...values})}`);
  let opened = addressedQuery(), started = false;

  const show = queryList(element("queries"), ([id, text]) => [make("span", {class: "words"}, text || id), make("span"),
    make("span", {class: "id"}, id)], open, opened);

  async function open(id) {
    opened = id;
    const entry = await ask("query", {query_id: id});
    if (opened !== id) return;
    const nodes = rankingSides(entry, names, pair, (query, system, doc) =>
      `/why?${new URLSearchParams({at: keys[system], query_id: query, doc})}`);
    element("query").replaceChildren(...nodes);
    element("opened").textContent = `Opened: ${entry.text || entry.id}`;
    const below = element("query").offsetTop >= element("queries").offsetTop + element("queries").offsetHeight;
    if (below && started) element("query").scrollIntoView({block: "start"});
  }

  async function list() {
    let state = {};
    const total = await show(async (start, count) => state = await ask("rows", {text: find.value, start, count}));
    if (total === null) return;
    element("count").textContent = total === 1 ? "1 query" : `${total.toLocaleString("en")} queries`;
    element("problem").hidden = !state.problem;
    element("problem").textContent = state.problem ? `Texts are missing: ${state.problem}` : "";
    if (state.waiting) setTimeout(again, 700);
    started = true;
  }

  // The texts are there when the collection is open.
  async function again() {
    started = false;
    await list();
    if (opened !== null) await open(opened);
  }

  let typed = 0;
  find.addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(list, 200); });
  if (opened !== null) open(opened).catch(() => {}); // the status line shows it
  list();
}

runQueries(shownRun);
