/* A page whose title is what was searched for comes before pages that have the words somewhere, its sections next. */
var Scorer = {
  score: ([, , anchor, , score, , kind]) => (kind === "title" ? score + (anchor ? 50 : 100) : score),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
