"use strict";
const jobFilter = document.getElementById("filter");

function panel(job) {
  const head = make("h2", {}, make("a", {href: jobAddress(job.key)}, job.key), make("span", {class: "muted"}, job.verb || "preparing"));
  const box = make("article", {class: "panel job"}, head, progressBar(job.share, job.key), make("p", {class: "progress"}, job.progress),
    make("dl", {class: "figures"}, ...jobFigures(job)));
  if (job.resumed) box.append(make("p", {class: "muted"}, job.resumed));
  return box;
}

function row(job) {
  const figures = job.problem || job.figures.slice(0, 2).map(([label, text]) => `${label} ${text}`).join(" · ");
  const cells = [["", make("a", {href: jobAddress(job.key)}, job.key)], ["left", job.verb], ["left", stateTag(job.state)], ["left", job.progress],
    ["text", figures], ["", job.took], ["cost", job.cost], ["", job.changed]];
  return make("tr", {}, ...cells.map(([name, inside]) => make("td", name ? {class: name} : {}, inside)));
}

function showJobs(listing) {
  const verdict = document.getElementById("verdict");
  if (verdict.textContent !== `${listing.verdict}.`) verdict.textContent = `${listing.verdict}.`;
  const entries = (jobs, draw) => jobs.map(job => [job.key, JSON.stringify(job), () => draw(job)]);
  showRows(document.getElementById("running"), entries(listing.running, panel));
  showRows(document.querySelector("#jobs tbody"), entries(listing.others, row));
  const table = document.getElementById("jobs");
  table.classList.toggle("free", !listing.others.some(job => job.cost));
  table.hidden = !listing.others.length;
  const more = document.getElementById("more");
  const text = listing.more ? `${listing.more.toLocaleString("en-US")} more: filter to see them.` :
    listing.others.length || listing.running.length ? "" : "No job matches the filter.";
  if (more.textContent !== text) more.textContent = text;
}

async function refreshJobs() {
  const values = Object.fromEntries(new FormData(jobFilter));
  showJobs(await request(`/api/jobs?${new URLSearchParams(values)}`));
}

showJobs(pageData());
jobFilter.addEventListener("submit", event => event.preventDefault());
jobFilter.addEventListener("input", () => refreshJobs().catch(() => {}));
every(2, refreshJobs);
