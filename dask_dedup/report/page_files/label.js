(() => {
  const mayLoad = mayLoadPictures(false);
  const place = `dask-dedup:labels:${data.identity}`;
  const column = data.columns.indexOf("label"), similarity = data.columns.indexOf("similarity");
  const labels = data.rows.map((row) => row[column]);
  const seen = new Set();
  try {
    for (const [i, label] of JSON.parse(store.get("localStorage", place) ?? "[]")) {
      if (Number.isInteger(i) && i >= 0 && i < labels.length && ["yes", "no", ""].includes(label)) {
        labels[i] = label;
        seen.add(i);
      }
    }
  } catch { /* of another version */ }
  let at = Math.max(labels.findIndex((label, i) => !label && !seen.has(i)), 0);

  function side(one) {
    const figure = document.createElement("figure");
    const box = document.createElement("span");
    box.className = "picture";
    const source = one.picture ?? (mayLoad ? one.url : null);
    if (source) {
      const image = new Image();
      image.referrerPolicy = "no-referrer";
      image.alt = "";
      image.src = source;
      box.append(image);
    } else {
      const none = document.createElement("span");
      none.className = "none";
      none.textContent = one.url ?? "no picture";
      box.append(none);
    }
    const caption = document.createElement("figcaption");
    const words = document.createElement("span");
    words.className = "caption";
    words.dir = "auto";
    for (const [text, isOther] of one.words) {
      const part = document.createElement(isOther ? "mark" : "span");
      part.textContent = text;
      words.append(part);
    }
    const where = document.createElement("span");
    where.className = "where";
    where.append(`row ${one.row} `);
    if (one.url) {
      const link = document.createElement("a");
      link.href = one.url;
      link.rel = "noopener noreferrer nofollow";
      link.target = "_blank";
      link.referrerPolicy = "no-referrer";
      link.textContent = new URL(one.url).hostname;
      where.append(link);
    }
    caption.append(words, where);
    figure.append(box, caption);
    return figure;
  }

  function show() {
    by("two").replaceChildren(...data.pairs[at].map(side));
    const done = labels.filter(Boolean).length;
    by("progress").value = done;
    const own = labels[at] ? `: ${labels[at]}, similarity ${data.rows[at][similarity]}` : "";
    by("told").textContent = `pair ${at + 1} of ${labels.length}${own}; ${done} labelled`;
    for (const button of document.querySelectorAll("[data-label]")) {
      const isOwn = button.dataset.label === labels[at] && (labels[at] !== "" || seen.has(at));
      button.setAttribute("aria-pressed", String(isOwn));
    }
  }

  function move(by) {
    at = Math.min(Math.max(at + by, 0), labels.length - 1);
    show();
  }

  function say(label) {
    labels[at] = label;
    seen.add(at);
    store.set("localStorage", place, JSON.stringify([...seen].map((i) => [i, labels[i]])));
    move(1);
  }

  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  function saveLabels() {
    const rows = data.rows.map((row, i) => row.map((value, j) => quoted(j === column ? labels[i] : value)).join(","));
    save(data.name, [data.columns.join(","), ...rows, ""].join("\n"));
  }

  for (const button of document.querySelectorAll("[data-label]")) button.addEventListener("click", () => say(button.dataset.label));
  by("back").addEventListener("click", () => move(-1));
  by("next").addEventListener("click", () => move(1));
  by("save").addEventListener("click", saveLabels);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const label = { y: "yes", n: "no", s: "" }[event.key];
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (label !== undefined) say(label);
    else if (by) move(by);
  });
  show();
})();
