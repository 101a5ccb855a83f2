"use strict";
// What pages share: it stands before the script of each.
const by = (id) => document.getElementById(id);
const data = JSON.parse(by("data").textContent);
document.documentElement.classList.add("js");

// Storage may be refused, for one in a private window; the page works without.
const store = {
  get(place, key) { try { return window[place].getItem(key); } catch { return null; } },
  set(place, key, value) { try { window[place].setItem(key, value); } catch { /* not kept */ } },
};

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Pictures from the web: only where they were asked for, by the command or by a click.
function mayLoadPictures(isAsked) {
  const asked = `dask-dedup:load:${data.identity}`;
  if (isAsked || store.get("sessionStorage", asked)) {
    by("ask")?.remove();
    return true;
  }
  const policy = document.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = "img-src data:";
  document.head.append(policy);
  by("load-pictures")?.addEventListener("click", () => {
    store.set("sessionStorage", asked, "yes");
    location.reload();
  });
  return false;
}
