"use strict";
// The page Ask: asks the chosen systems and shows their documents side by side.
const form = document.getElementById("ask");
const NAMES = {a: "A", b: "B"};
const WAIT = 400; // milliseconds between two looks at a system that is being opened
let turn = 0; // number of the latest question; answers to earlier ones are dropped

function chosenSides() {
  return ["a", "b"].filter(side => form.elements[side].value);
}

function systemName(side) {
  const option = form.elements[side].selectedOptions[0];
  const group = option.parentElement.label;
  return group ? `${option.textContent} · ${group}` : option.textContent;
}

function address() {
  const values = {q: form.elements.q.value.trim(), a: form.elements.a.value, b: form.elements.b.value, k: form.elements.k.value};
  return `/ask?${new URLSearchParams(values)}`;
}

// The answer of a system; waits while it is being opened.
async function answerOf(side, query, current, waiting) {
  const values = {at: form.elements[side].value, q: query, k: form.elements.k.value};
  for (;;) {
    const answer = await request(`/api/ask?${new URLSearchParams(values)}`);
    if (current !== turn) return null;
    if (answer.state === "ready") return answer;
    waiting(answer.seconds);
    await new Promise(resolve => setTimeout(resolve, WAIT));
    if (current !== turn) return null;
  }
}

function newSide(side) {
  const state = make("p", {class: "muted", role: "status"});
  const element = make("section", {"aria-label": `Documents of ${NAMES[side]}`},
    make("h2", {}, `${NAMES[side]}: ${systemName(side)}`), state, make("ol", {class: "ranking"}));
  return {element, state, list: element.querySelector("ol")};
}

function showHits(view, answer, other) {
  const ranks = other && new Map(other.hits.map(hit => [hit.id, hit.rank]));
  view.list.replaceChildren(...answer.hits.map(hit =>
    rankingItem(ranks ? {...hit, elsewhere: ranks.has(hit.id) ? ranks.get(hit.id) : null} : hit)));
  const judged = answer.relevant === null ? "" : ` · judged query ${answer.query_id}`;
  view.state.textContent = answer.hits.length ? `${answer.milliseconds}${judged}` : `No document. ${answer.milliseconds}${judged}`;
}

function relevantAmong(answer) {
  return answer.hits.filter(hit => hit.grade > 0).length;
}

function verdictOf(answers) {
  const [first, second] = answers;
  if (!second) {
    if (first.relevant === null) return `${first.hits.length} documents in ${first.milliseconds}.`;
    return `${relevantAmong(first)} of ${first.relevant} relevant documents are among the first ${first.hits.length}.`;
  }
  const ranks = new Map(first.hits.map(hit => [hit.id, hit.rank]));
  const shared = second.hits.filter(hit => ranks.has(hit.id));
  const same = shared.filter(hit => ranks.get(hit.id) === hit.rank).length;
  const size = Math.max(first.hits.length, second.hits.length);
  const parts = [`A and B share ${shared.length} of ${size} documents, ${same} at the same rank.`];
  if (first.relevant !== null && second.relevant !== null) {
    parts.push(`A has ${relevantAmong(first)} and B ${relevantAmong(second)} of ${first.relevant} relevant documents.`);
  }
  return parts.join(" ");
}

async function ask() {
  const current = ++turn, query = form.elements.q.value.trim(), verdict = document.getElementById("verdict");
  const sides = document.getElementById("sides"), views = new Map(chosenSides().map(side => [side, newSide(side)]));
  if (!query) {
    verdict.textContent = "";
    sides.replaceChildren();
    return;
  }
  sides.replaceChildren(...[...views.values()].map(view => view.element));
  verdict.textContent = "Searching…";
  const answers = await Promise.all([...views].map(async ([side, view]) => {
    try {
      const answer = await answerOf(side, query, current, seconds => {
        verdict.textContent = "Loading the model…";
        view.state.textContent = `loading the model, ${seconds.toFixed(0)} s; a first search also encodes the documents`;
      });
      if (answer) showHits(view, answer);
      return answer;
    } catch (error) {
      if (current === turn) view.state.textContent = error.message;
      return null;
    }
  }));
  if (current !== turn) return;
  const list = [...views.values()];
  list.forEach((view, place) => { if (answers[place]) showHits(view, answers[place], answers[1 - place]); });
  const complete = answers.filter(answer => answer);
  verdict.textContent = complete.length ? verdictOf(complete) : "";
  document.getElementById("measured").hidden = !complete.length;
  document.title = `${query} · Ask · irdistill`;
  suggest(complete);
}

function suggest(answers) {
  const texts = new Set(answers.flatMap(answer => answer.suggestions));
  document.getElementById("queries").replaceChildren(...[...texts].map(text => make("option", {value: text})));
}

// Opens the systems before the first question, so that it does not wait.
async function prepare() {
  const current = ++turn;
  const answers = await Promise.all(chosenSides().map(side => answerOf(side, "", current, () => {}).catch(() => null)));
  if (current === turn) suggest(answers.filter(answer => answer));
}

if (form) {
  form.addEventListener("submit", event => {
    event.preventDefault();
    if (address() !== location.pathname + location.search) history.pushState(null, "", address());
    ask();
  });
  for (const name of ["a", "b", "k"]) {
    form.elements[name].addEventListener("change", () => {
      if (form.elements.q.value.trim()) form.requestSubmit();
      else prepare();
    });
  }
  addEventListener("popstate", () => {
    const values = new URLSearchParams(location.search);
    for (const name of ["q", "a", "b", "k"]) if (values.has(name)) form.elements[name].value = values.get(name);
    ask();
  });
  if (form.elements.q.value.trim()) ask();
  else prepare();
}
