(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  function csv(columns) {
    const names = Object.keys(columns);
    const rows = columns[names[0]].map((_, i) => names.map((name) => columns[name][i]).join(","));
    return [names.join(","), ...rows, ""].join("\n");
  }

  for (const button of all("[data-save]")) {
    button.addEventListener("click", () => save(`${button.dataset.save}.csv`, csv(data[button.dataset.save])));
  }

  if (mayLoadPictures(data.load)) {
    for (const box of all("[data-url]")) {
      const image = new Image();
      image.loading = "lazy";
      image.referrerPolicy = "no-referrer";
      image.alt = "";
      image.addEventListener("load", () => box.replaceChildren(image));
      image.addEventListener("error", () => image.remove());
      image.src = box.dataset.url;
      box.append(image);
    }
  }

  // The slider of the sweep.
  const slider = by("sweep-slider");
  const sweep = data.sweep;
  if (slider && sweep) {
    const chart = by("sweep-chart"), marker = by("sweep-marker"), dot = by("sweep-dot");
    const thresholds = sweep.threshold, first = thresholds[0], last = thresholds.at(-1);
    const line = chart.querySelector("path.line").getAttribute("d").slice(1).split("L");
    slider.min = first; slider.max = last; slider.step = "any"; slider.disabled = false;
    slider.value = data.threshold;
    const count = (number) => number.toLocaleString("en");
    // The precision is known at some thresholds: that of the highest one not above counts.
    const sure = (threshold) => {
      const known = data.precision;
      const j = known ? known.threshold.findLastIndex((one) => one <= threshold) : -1;
      if (j < 0) return { precision: "–", interval: "–", precision_from: "–" };
      const percent = (name) => (100 * known[name][j]).toFixed(1);
      return {
        precision: `${percent("precision")} %`, interval: `${percent("low")}–${percent("high")} %`,
        precision_from: String(known.threshold[j]),
      };
    };
    const show = () => {
      const wanted = Number(slider.value);
      let i = 0;
      thresholds.forEach((one, j) => { if (Math.abs(one - wanted) < Math.abs(thresholds[i] - wanted)) i = j; });
      const share = 1 - sweep.kept_fraction[i];
      const told = { threshold: String(thresholds[i]), share: `${(100 * share).toFixed(1)} %`, ...sure(thresholds[i]) };
      for (const field of all("#threshold [data-of]")) {
        const name = field.dataset.of;
        field.textContent = told[name] ?? count(sweep[name][i]);
      }
      const [x, y] = line[i].split(" ");
      marker.setAttribute("transform", `translate(${x} 0)`);
      marker.style.visibility = "visible";
      dot.setAttribute("cx", x); dot.setAttribute("cy", y);
      slider.setAttribute("aria-valuetext", told.threshold);
    };
    slider.addEventListener("input", show);
    const step = (by) => {
      const i = thresholds.findIndex((one) => String(one) === document.querySelector("#sweep-facts [data-of=threshold]").textContent);
      slider.value = thresholds[Math.min(Math.max(i + by, 0), thresholds.length - 1)];
      show();
    };
    slider.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (by) { event.preventDefault(); step(by); }
    });
    show();
  }

  // Tabs of the gallery.
  const tabs = all("[role=tab]");
  const open = (tab) => {
    for (const one of tabs) {
      one.setAttribute("aria-selected", String(one === tab));
      one.tabIndex = one === tab ? 0 : -1;
      const panel = by(one.getAttribute("aria-controls"));
      panel.classList.toggle("shown", one === tab);
      panel.querySelector(".tile")?.setAttribute("tabindex", "0"); // where the Tab key enters
    }
    choose(null);
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      const next = tabs[(i + by + tabs.length) % tabs.length];
      open(next);
      next.focus();
    });
  });

  // Decisions: one for a row, kept by this browser for this result.
  const kept = `dask-dedup:decisions:${data.identity}`;
  const decisions = new Map();
  const words = ["keep", "drop", "not-duplicates"];
  try {
    for (const [row, word] of JSON.parse(store.get("localStorage", kept) ?? "[]")) {
      if (Number.isSafeInteger(row) && words.includes(word)) decisions.set(row, word);
    }
  } catch { /* of another version */ }
  const desk = by("desk");
  let chosen = null;
  const rowOf = (tile) => Number(tile.dataset.row);

  function paint() {
    for (const tile of all(".tile")) {
      const word = decisions.get(rowOf(tile));
      if (word) tile.dataset.decision = word; else delete tile.dataset.decision;
    }
    const n = decisions.size;
    by("desk-count").textContent = n === 0 ? "no decisions" : `${n} decision${n === 1 ? "" : "s"}`;
    by("desk-row").textContent = chosen ? `row ${rowOf(chosen)}` : "choose a row with a click or the arrow keys";
    for (const button of all("[data-decide]")) button.disabled = !chosen;
    by("save-decisions").disabled = by("clear-decisions").disabled = n === 0;
    desk.hidden = !chosen && n === 0;
  }

  function choose(tile) {
    chosen?.classList.remove("chosen");
    chosen = tile;
    if (tile) {
      tile.classList.add("chosen");
      if (document.activeElement !== tile) tile.focus({ preventScroll: true });
      tile.scrollIntoView({ block: "nearest" });
    }
    paint();
  }

  function decide(word) {
    if (!chosen) return;
    const row = rowOf(chosen);
    if (decisions.get(row) === word) decisions.delete(row); else decisions.set(row, word);
    store.set("localStorage", kept, JSON.stringify([...decisions]));
    paint();
  }

  function move(key) {
    const tiles = all(".shown .tile");
    const i = tiles.indexOf(chosen);
    if (i < 0) return choose(tiles[0] ?? null);
    if (key === "ArrowLeft" || key === "ArrowRight") {
      return choose(tiles[Math.min(Math.max(i + (key === "ArrowRight" ? 1 : -1), 0), tiles.length - 1)]);
    }
    // Up and down: to the first row of the cluster before, or of the next.
    const cards = all(".shown .card");
    const j = cards.indexOf(chosen.closest(".card")) + (key === "ArrowDown" ? 1 : -1);
    const next = cards[Math.min(Math.max(j, 0), cards.length - 1)];
    return choose(next.querySelector(".tile"));
  }

  const gallery = by("gallery");
  gallery.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (tile && !event.target.closest("a")) choose(tile);
  });
  gallery.addEventListener("focusin", (event) => {
    if (event.target.matches(".tile") && event.target !== chosen) choose(event.target);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inGallery = chosen || gallery.contains(document.activeElement);
    if (!inGallery || event.target.closest("input, [role=tab], summary")) return;
    if (event.key.startsWith("Arrow")) {
      event.preventDefault();
      move(event.key);
    } else if (event.key === "Escape") {
      chosen?.blur();
      choose(null);
    } else {
      const word = { k: "keep", d: "drop", n: "not-duplicates" }[event.key];
      if (word) decide(word);
    }
  });
  for (const button of all("[data-decide]")) button.addEventListener("click", () => decide(button.dataset.decide));
  by("save-decisions").addEventListener("click", () => {
    const rows = [...decisions].sort((one, other) => one[0] - other[0]);
    save("decisions.csv", ["row_id,decision", ...rows.map((row) => row.join(",")), ""].join("\n"));
  });
  by("clear-decisions").addEventListener("click", () => {
    decisions.clear();
    store.set("localStorage", kept, "[]");
    paint();
  });
  if (tabs.length) open(tabs[0]);
})();
