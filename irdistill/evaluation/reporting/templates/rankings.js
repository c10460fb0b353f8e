"use strict";
// Rankings: texts with marked words, and the documents of a ranked list.

// The nodes of a text in which spans, [start, end] in characters as Python counts them, are marked.
function highlighted(text, spans) {
  const letters = spans.length ? Array.from(text) : [], nodes = [];
  let end = 0;
  for (const [start, stop] of spans) {
    nodes.push(letters.slice(end, start).join(""), make("mark", {}, letters.slice(start, stop).join("")));
    end = stop;
  }
  return [...nodes, spans.length ? letters.slice(end).join("") : text];
}

// How a document's rank compares with its rank in another list; null: it is not in that list.
function movedText(rank, elsewhere) {
  if (elsewhere === null) return "only here";
  if (elsewhere === rank) return "same rank there";
  return `${elsewhere > rank ? "↑" : "↓"}${Math.abs(elsewhere - rank)}, rank ${elsewhere} there`;
}

// A document of a ranked list. Of these fields only rank and id are needed:
//   title, text, spans, titleSpans: spans are of the words to mark;
//   before, after: whether the text goes on before and after the part that is shown;
//   passage: its number in the document; score: as text;
//   grade: of the judgment, null: not judged; least: the grade from which a document is relevant (1);
//   elsewhere: its rank in the other list, null: not there; why: address of the page Why;
//   facts: more short texts, such as flags.
function rankingItem({rank, id, title = "", text = "", spans = [], titleSpans = [], before = false, after = false, passage = null,
  score = "", grade, least = 1, elsewhere, why, facts = []}) {
  const classes = [], line = [];
  if (passage !== null) line.push(make("span", {}, `passage ${passage}`));
  if (grade !== undefined) {
    const name = grade === null ? "not judged" : grade >= least ? `relevant (${grade})` : `judged ${grade}`;
    if (grade !== null) classes.push(grade >= least ? "relevant" : "judged");
    line.push(make("span", {class: "grade"}, name));
  }
  if (elsewhere !== undefined) {
    classes.push(elsewhere === null ? "alone" : "shared");
    line.push(make("span", {class: "moved"}, movedText(rank, elsewhere)));
  }
  for (const fact of facts) line.push(make("span", {}, fact));
  if (why) line.push(make("a", {href: why, "aria-label": `Why ${id}`}, "Why"));
  const item = make("li", {class: classes.join(" "), "data-doc": id},
    make("span", {class: "rank"}, `${rank}.`),
    make("div", {class: "entry"},
      make("p", {class: "head"}, make("b", {}, id), ...(title && title !== id ? [" ", make("span", {class: "title"}, ...highlighted(title, titleSpans))] : [])),
      ...(line.length ? [make("p", {class: "facts"}, ...line)] : []),
      ...(text ? [make("p", {class: "excerpt"}, before ? "… " : "", ...highlighted(text, spans), after ? " …" : "")] : [])));
  if (score !== "") item.append(make("span", {class: "score"}, score));
  return item;
}
