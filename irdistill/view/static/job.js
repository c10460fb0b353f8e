"use strict";
const jobKey = document.getElementById("job").dataset.at;
const charts = new Map(); // by title: the chart and its series by name
let known = {rows: 0, generation: 0};

function setText(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
}

function showJob(job) {
  setText("verdict", job.sentence);
  setText("resumed", job.resumed ? `${job.resumed[0].toUpperCase()}${job.resumed.slice(1)}.` : "");
  const tag = document.getElementById("state"), bar = document.getElementById("bar");
  if (tag.textContent !== job.state) tag.replaceChildren(stateTag(job.state));
  bar.hidden = job.share === null || job.state === "done";
  if (job.share !== null) bar.value = job.share;
  showRows(document.getElementById("figures"), jobFigures(job).map(element => [element.firstChild.textContent, element.textContent, () => element]));
}

function stageRow(stage) {
  const name = stage.key ? make("a", {href: jobAddress(stage.key)}, stage.name) : stage.name;
  const progress = make("td", {class: "text"});
  if (stage.share !== null) progress.append(progressBar(stage.share, stage.name));
  progress.append([stage.problem || stage.progress, stage.remaining && `about ${stage.remaining} left`].filter(Boolean).join(", "));
  return make("tr", {}, make("td", {}, name), make("td", {class: "left"}, stage.verb), make("td", {class: "left"}, stateTag(stage.state)),
    progress, make("td", {}, stage.took));
}

function showCharts(data) {
  const box = document.getElementById("charts");
  for (const {title, across, series} of data.charts) {
    if (!charts.has(title)) {
      const chart = lineChart(title, across);
      charts.set(title, {chart, series: new Map()});
      const later = [...box.children].find(other => order(other, data.charts) > data.charts.findIndex(entry => entry.title === title));
      chart.element.dataset.title = title;
      box.insertBefore(chart.element, later || null);
    }
    const entry = charts.get(title);
    for (const curve of series) {
      const before = curve.replace || !entry.series.has(curve.name) ? [] : entry.series.get(curve.name).points;
      entry.series.set(curve.name, {...curve, points: [...before, ...curve.points]});
    }
    for (const name of [...entry.series.keys()]) if (!series.some(curve => curve.name === name)) entry.series.delete(name);
    entry.chart.update([...entry.series.values()].map(curve => ({name: curve.name, points: withLast(curve)})));
  }
  if (data.charts.length) showLast();
}

const order = (element, listed) => listed.findIndex(entry => entry.title === element.dataset.title);
const withLast = ({points, last}) => points.length && points.at(-1)[0] >= last[0] ? points : [...points, last];

function showLast() {
  const rows = [...charts.values()].flatMap(({series}) => [...series.values()]).map(curve => {
    const at = curve.last[0].toLocaleString("en-US", {maximumFractionDigits: 1});
    const draw = () => make("tr", {}, make("td", {}, curve.number), make("td", {}, at), make("td", {}, curve.shown));
    return [curve.number, `${at} ${curve.shown}`, draw];
  });
  showRows(document.querySelector("#last-values tbody"), rows);
}

function showAll(data) {
  showJob(data.job);
  const stages = document.querySelector("#stages tbody");
  if (stages) showRows(stages, data.stages.map(stage => [stage.name, JSON.stringify(stage), () => stageRow(stage)]));
  if (document.getElementById("charts")) showCharts(data);
  else if (data.charts.length) location.reload(); // the first lines of the log
  known = {rows: data.rows, generation: data.generation};
}

showAll(pageData());
every(1, async () => showAll(await request(`/api/job?${new URLSearchParams({at: jobKey, since: known.rows, generation: known.generation})}`)));
