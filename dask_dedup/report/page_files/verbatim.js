"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);
  const data = JSON.parse(by("data").textContent);
  document.documentElement.classList.add("js");

  // Decisions: one for a picture, kept by this browser for these scores.
  const place = `dask-dedup:verbatim:${data.identity}`;
  const words = ["confirmed", "rejected"];
  const decisions = new Map(Object.entries(data.decided));
  try {
    for (const [image, word] of JSON.parse(localStorage.getItem(place) ?? "[]")) {
      if (typeof image === "string" && words.includes(word)) decisions.set(image, word);
    }
  } catch { /* storage may be refused, or of another version */ }
  const keep = () => {
    try { localStorage.setItem(place, JSON.stringify([...decisions])); } catch { /* not kept */ }
  };

  const rows = by("rows");
  let chosen = null;
  const shown = () => all(".row:not([hidden])", rows);

  function paint() {
    for (const row of all(".row", rows)) {
      const word = decisions.get(row.dataset.image);
      if (word) row.dataset.decision = word; else delete row.dataset.decision;
    }
    const n = decisions.size;
    by("desk-count").textContent = n === 0 ? "no decisions" : `${n} decision${n === 1 ? "" : "s"}`;
    by("desk-row").textContent = chosen ? chosen.dataset.image.split("/").at(-1) : "choose a picture";
    for (const button of all("[data-decide]")) button.disabled = !chosen;
    by("save-decisions").disabled = by("clear-decisions").disabled = n === 0;
    by("desk").hidden = !chosen && n === 0;
  }

  function choose(row) {
    chosen?.classList.remove("chosen");
    chosen = row;
    if (row) {
      row.classList.add("chosen");
      if (document.activeElement !== row) row.focus({ preventScroll: true });
      row.scrollIntoView({ block: "nearest" });
    }
    paint();
  }

  function decide(word) {
    if (!chosen) return;
    const image = chosen.dataset.image;
    if (decisions.get(image) === word) decisions.delete(image); else decisions.set(image, word);
    keep();
    paint();
  }

  rows.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row && !event.target.closest("a")) choose(row);
  });
  rows.addEventListener("focusin", (event) => {
    if (event.target.matches(".row") && event.target !== chosen) choose(event.target);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!(chosen || rows.contains(document.activeElement) || rows.matches(":hover"))) return;
    const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (by) {
      event.preventDefault();
      const open = shown();
      const i = open.indexOf(chosen);
      choose(open[i < 0 ? 0 : Math.min(Math.max(i + by, 0), open.length - 1)] ?? null);
    } else if (event.key === "Escape") {
      chosen?.blur();
      choose(null);
    } else {
      const word = { c: "confirmed", r: "rejected" }[event.key];
      if (word) decide(word);
    }
  });
  for (const button of all("[data-decide]")) button.addEventListener("click", () => decide(button.dataset.decide));

  const press = (buttons, one) => buttons.forEach((each) => each.setAttribute("aria-pressed", String(each === one)));
  const sorts = all("[data-sort]"), kinds = all("[data-kind]:is(button)");
  for (const button of sorts) {
    button.addEventListener("click", () => {
      press(sorts, button);
      const name = button.dataset.sort, sign = name === "k" ? -1 : 1;
      rows.append(...all(".row", rows).sort((a, b) => sign * (a.dataset[name] - b.dataset[name])));
    });
  }
  for (const button of kinds) {
    button.addEventListener("click", () => {
      press(kinds, button);
      for (const row of all(".row", rows)) row.hidden = Boolean(button.dataset.kind) && row.dataset.kind !== button.dataset.kind;
      choose(null);
    });
  }

  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  by("save-decisions").addEventListener("click", () => {
    const lines = [...decisions].sort().map(([image, word]) => `${quoted(image)},${word},${data.pictures}`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([["image,verdict,pictures", ...lines, ""].join("\n")], { type: "text/csv" }));
    link.download = "verdicts.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  by("clear-decisions").addEventListener("click", () => { decisions.clear(); keep(); paint(); });
  paint();
})();
