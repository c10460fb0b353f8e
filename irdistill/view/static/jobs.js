"use strict";
// What the page of all jobs and the page of one job share.
const jobAddress = key => `/watch/job?${new URLSearchParams({at: key})}`;
const stateTag = state => make("span", {class: `state ${state}`}, state);
const figure = (label, text) => make("div", {}, make("dt", {}, label), make("dd", {}, text));

// The figures of a job; a running job's begin with the time that is left.
function jobFigures(job) {
  const times = [["time left", job.remaining], ["time so far", job.took], ["cost", job.cost]];
  if (job.state !== "running") times.splice(0, 2, ["time", job.took], ["last change", job.changed]);
  return [...times.filter(([, text]) => text), ...job.figures].map(([label, text]) => figure(label, text));
}

function progressBar(share, label) {
  const bar = make("progress", {max: 1, "aria-label": label});
  if (share !== null) bar.value = share;
  return bar;
}

// Shows rows in a table's body without replacing those that have not changed, so that focus and selection stay.
//   rows: a list of [name, content, make], where content is JSON text and make gives the row.
function showRows(body, rows) {
  const known = new Map([...body.children].map(row => [row.dataset.name, row]));
  const shown = rows.map(([name, content, draw]) => {
    let row = known.get(name);
    if (!row || row.dataset.content !== content) {
      const focused = row?.contains(document.activeElement);
      const next = draw();
      row?.replaceWith(next);
      row = next;
      row.dataset.name = name;
      row.dataset.content = content;
      if (focused) row.querySelector("a")?.focus();
    }
    return row;
  });
  for (const row of [...body.children]) if (!shown.includes(row)) row.remove();
  shown.forEach((row, place) => { if (body.children[place] !== row) body.insertBefore(row, body.children[place] || null); });
}
