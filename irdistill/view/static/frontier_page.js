"use strict";
const plot = document.getElementById("plot");

if (plot) plot.append(drawFrontier(pageData(), plot.clientWidth));
document.querySelectorAll("table.sortable").forEach(sortable);
