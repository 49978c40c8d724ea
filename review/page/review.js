// Every text from the set goes in as text: nothing here writes HTML, and the page's policy forbids it.
const PAGE = 60;
const SAID = { keep: "✓ kept", reject: "✕ rejected", "": "" };
const element = (id) => document.getElementById(id);
const form = element("form"), gallery = element("gallery"), large = element("large"), help = element("help");

let set = { items: [], beside: [], measures: {}, findings: {} };
let matching = [];            // numbers of the items that the filters leave, as they were applied
let page = 0, cursor = 0;     // the cursor is a place in `matching`
let lastSave = Promise.resolve(), unsaved = 0;
let inputs = 0;               // keys and clicks so far: who has gone on is not moved back
const selected = new Set(), tiles = new Map();

function make(tag, properties = {}, ...children) {
  const { dataset, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
}

// --- what is shown ---------------------------------------------------------------------------------------

function options(name, values, all) {
  const known = [...values].map(([value, text]) => make("option", { value, textContent: text }));
  form.elements[name].replaceChildren(...(all ? [make("option", { value: "", textContent: all })] : []), ...known);
  const label = form.querySelector(`[data-for=${name}]`);
  if (label) label.hidden = known.length < (name === "finding" ? 1 : 2);
}

function counted(values, title = (value) => value) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].map(([value, count]) => [value, `${title(value)} (${count})`]);
}

function prepare() {
  document.title = `Review: ${set.title}`;
  element("title").textContent = set.title;
  const kinds = set.items.flatMap((item) => [...new Set(item.findings.map((one) => one.kind))]);
  const odd = set.items.filter((item) => item.findings.length).length;
  options("label", counted(set.items.map((item) => item.label)), "all");
  options("split", counted(set.items.map((item) => item.split)), "all");
  options("context", counted(set.items.map((item) => item.context).filter(Boolean)).sort(), "all");
  options("finding", odd ? [["any", `any (${odd})`], ...counted(kinds, (kind) => set.findings[kind])] : [], "all");
  const measured = Object.keys(set.measures).filter((name) => set.items.some((item) => name in item.measures));
  options("measure", measured.map((name) => [name, set.measures[name]]), "none");
  if (odd) form.elements.finding.value = "any";
  element("filters").open = matchMedia("(min-width: 40.01rem)").matches;
}

function passes(item, wanted) {
  const value = item.measures[wanted.measure];
  const decided = wanted.verdict === "note" ? item.note : (item.verdict || "undecided") === wanted.verdict;
  return (!wanted.label || item.label === wanted.label)
    && (!wanted.split || item.split === wanted.split)
    && (!wanted.context || item.context === wanted.context)
    && (!wanted.verdict || decided)
    && (!wanted.finding || item.findings.some((one) => wanted.finding === "any" || one.kind === wanted.finding))
    && (!wanted.text || `${item.name} ${item.prompt}`.toLowerCase().includes(wanted.text.toLowerCase()))
    && (!wanted.measure || wanted.least === "" || value >= Number(wanted.least))
    && (!wanted.measure || wanted.most === "" || value <= Number(wanted.most));
}

function filter() {
  const wanted = Object.fromEntries(new FormData(form));
  for (const label of form.querySelectorAll("[data-for=range]")) label.hidden = !wanted.measure;
  form.elements.order.parentElement.hidden = !wanted.measure;
  matching = [...set.items.keys()].filter((number) => passes(set.items[number], wanted));
  if (wanted.measure && wanted.order) {
    const sign = wanted.order === "up" ? 1 : -1;
    const value = (number) => set.items[number].measures[wanted.measure] ?? sign * Infinity;
    matching.sort((a, b) => sign * (value(a) - value(b)) || a - b);
  } else {
    const place = new Map([...new Set(set.items.map((item) => item.label))].map((label, i) => [label, i]));
    matching.sort((a, b) => place.get(set.items[a].label) - place.get(set.items[b].label) || a - b);
  }
  selected.clear();
  cursor = 0;
  element("matching").textContent = `${matching.length} of ${set.items.length}`;
  show(0);
}

function show(wanted) {
  page = Math.max(0, Math.min(wanted, pages() - 1));
  tiles.clear();
  const here = matching.slice(page * PAGE, (page + 1) * PAGE);
  const groups = [];
  for (const number of here) {
    const label = set.items[number].label;
    if (groups.at(-1)?.label !== label) groups.push({ label, numbers: [] });
    groups.at(-1).numbers.push(number);
  }
  const none = make("p", { className: "muted", textContent: "No image matches these filters." });
  gallery.replaceChildren(...(groups.length ? groups.map(section) : [none]));
  element("place").textContent = `${page + 1} / ${pages()}`;
  if (here.length) point(Math.max(page * PAGE, Math.min(cursor, page * PAGE + here.length - 1)), { focus: false });
  tally();
}

const pages = () => Math.max(1, Math.ceil(matching.length / PAGE));

function section({ label, numbers }) {
  const real = set.beside.filter((photo) => photo.label === label);
  const title = make("h2", {}, label, " ", make("span", { textContent: `${numbers.length} on this page` }));
  const grid = make("ul", { className: "grid", role: "listbox", ariaMultiSelectable: "true", ariaLabel: label });
  grid.append(...numbers.map(tile));
  const pair = make("div", { className: "pair" }, grid);
  if (real.length) {
    const strip = make("div", { className: "strip", tabIndex: 0, role: "region", ariaLabel: `Photos of ${label}` });
    strip.append(...real.map((photo) =>
      make("img", { src: `thumbnail/${photo.number}`, loading: "lazy", alt: photo.name, title: photo.name })));
    const heading = make("h3", { textContent: `Real photos (${real.length})` });
    pair.append(make("aside", { className: "real" }, heading, strip));
  }
  return make("section", {}, title, pair);
}

function tile(number) {
  const item = set.items[number];
  const made = make("li", { className: "tile", role: "option", tabIndex: -1, dataset: { number } },
    make("img", { src: `thumbnail/${number}`, loading: "lazy", decoding: "async", alt: "" }),
    make("button", { className: "mark", type: "button", tabIndex: -1, textContent: "✓", ariaHidden: "true" }),
    make("p", {}));
  tiles.set(number, made);
  refresh(number);
  return made;
}

function refresh(number) {
  const made = tiles.get(number), item = set.items[number];
  if (!made) return;
  const odd = item.findings.map((one) => set.findings[one.kind]).join(", ");
  const measure = form.elements.measure.value;
  const lines = [
    ["said", SAID[item.verdict] + (item.note ? " ✎" : "")], ["odd", odd],
    ["", measure in item.measures ? String(item.measures[measure]) : ""],
    ["", item.name.split("/").at(-1)],
  ].filter(([, text]) => text);
  made.dataset.verdict = item.verdict;
  made.ariaSelected = String(selected.has(number));
  made.ariaLabel = [item.name, item.label, SAID[item.verdict] || "undecided", odd].filter(Boolean).join(", ");
  made.title = [item.name, item.prompt, item.note].filter(Boolean).join("\n");
  made.querySelector("p").replaceChildren(
    ...lines.map(([className, text]) => make("div", { className, textContent: text })));
  if (large.open && number === matching[cursor]) described(item);
}

function tally() {
  const count = { keep: 0, reject: 0, "": 0 };
  for (const item of set.items) count[item.verdict] += 1;
  const decided = count.keep + count.reject;
  element("progress").textContent = `${decided} of ${set.items.length} decided: ${count.keep} kept, `
    + `${count.reject} rejected · as ${set.reviewer}` + (selected.size ? ` · ${selected.size} selected` : "");
  element("bar").max = set.items.length || 1;
  element("bar").value = decided;
}

// --- where the reviewer is -------------------------------------------------------------------------------

function point(place, { focus = true } = {}) {
  if (place < 0 || place >= matching.length) return;
  tiles.get(matching[cursor])?.setAttribute("tabindex", "-1");
  cursor = place;
  if (Math.floor(place / PAGE) !== page) show(Math.floor(place / PAGE));
  const made = tiles.get(matching[place]);
  made.tabIndex = 0;
  if (large.open) look();
  else if (focus) made.focus();
}

function beyond(direction) {
  // The tile above or below whose middle is nearest; other classes have other rows.
  const middle = (box) => (box.left + box.right) / 2;
  const from = tiles.get(matching[cursor]).getBoundingClientRect();
  const rest = [...tiles].map(([number, made]) => [number, made.getBoundingClientRect()])
    .filter(([, box]) => (direction > 0 ? box.top >= from.bottom : box.bottom <= from.top));
  if (!rest.length) return cursor + direction * Math.max(1, columns());
  const distance = ([, box]) => Math.abs(box.top - from.top) * 1000 + Math.abs(middle(box) - middle(from));
  return matching.indexOf(rest.reduce((best, one) => (distance(one) < distance(best) ? one : best))[0]);
}

function columns() {
  const tops = [...tiles.values()].map((made) => made.offsetTop);
  return tops.filter((top) => top === tops[0]).length;
}

function move(place, extend) {
  const to = Math.max(0, Math.min(place, matching.length - 1));
  if (extend) {
    for (let i = Math.min(cursor, to); i <= Math.max(cursor, to); i += 1) select(matching[i], true);
  }
  point(to);
  tally();
}

function select(number, on = !selected.has(number)) {
  if (on) selected.add(number);
  else selected.delete(number);
  refresh(number);
}

function selectPage() {
  const here = [...tiles.keys()], on = !here.every((number) => selected.has(number));
  here.forEach((number) => select(number, on));
  tally();
}

// --- decisions -------------------------------------------------------------------------------------------

function decide(verb) {
  const several = selected.size > 0 && !large.open;
  const numbers = several ? [...selected] : matching.slice(cursor, cursor + 1);
  if (!numbers.length) return;
  save({ verb, images: numbers, note: "" });
  if (several) {
    selected.clear();
    numbers.forEach(refresh);
  } else if (cursor + 1 < matching.length) {
    point(cursor + 1);
  }
}

function save(action) {
  // One after the other, so that the file has them in the order of the keys.
  const since = inputs;
  action.images.forEach((number) => tiles.get(number)?.classList.add("saving"));
  lastSave = lastSave.then(() => send(action, since)).catch((error) => {
    unsaved += 1;
    element("problem").hidden = false;
    element("problem").textContent = `Not saved: ${error.message} (${unsaved} so far). If the server has ended, `
      + "start it again and open its new address; what was saved is there.";
  }).finally(() => action.images.forEach((number) => tiles.get(number)?.classList.remove("saving")));
}

async function send(action, since) {
  const answer = await fetch("act", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(action),
  });
  if (!answer.ok) throw new Error(await answer.text());
  const { changed } = await answer.json();
  for (const { number, ...said } of changed) {
    Object.assign(set.items[number], said);
    refresh(number);
  }
  const what = action.verb === "undo" ? "undone" : SAID[action.verb] ?? action.verb;
  element("said").textContent = changed.length ? `${what}: ${changed.length}` : "nothing to undo";
  tally();
  if (action.verb === "undo" && changed.length && inputs === since) {
    const place = matching.indexOf(changed[0].number);
    if (place >= 0) point(place);
  }
}

// --- one image in large ----------------------------------------------------------------------------------

function look() {
  const number = matching[cursor];
  if (number === undefined) return;
  const item = set.items[number];
  if (!large.open) {
    large.showModal();
    large.focus();  // not its first field, where keys would be text
  }
  element("picture").src = `picture/${number}`;
  element("picture").alt = `${item.name}, ${item.label}`;
  element("name").textContent = item.name;
  described(item);
  element("note").value = item.note;
  element("others").replaceChildren();
  beside(number);
}

function described(item) {
  element("verdict").textContent = SAID[item.verdict] || "undecided";
  const facts = [
    ["class", item.label], ["split", item.split], ["prompt", item.prompt],
    ...item.findings.map((one) => [set.findings[one.kind], one.text]),
    ...Object.entries(item.measures).map(([name, value]) => [set.measures[name], String(value)]),
    ["said by", item.by && `${item.by}, ${item.at.slice(0, 16).replace("T", " ")} UTC`],
  ].filter(([, value]) => value);
  element("facts").replaceChildren(
    ...facts.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
}

async function beside(number) {
  const answer = await fetch(`beside/${number}`).catch(() => null);
  if (!answer?.ok || matching[cursor] !== number) return;
  const others = await answer.json();
  element("others").replaceChildren(...others.map((one) => make("figure", {},
    make("img", { src: `picture/${one.number}`, alt: one.name }),
    make("figcaption", { textContent: `${one.name}: ${one.text}` }))));
}

function note() {
  const number = matching[cursor], text = element("note").value.trim();
  if (number !== undefined && text !== set.items[number].note) save({ verb: "note", images: [number], note: text });
}

// --- keys and buttons ------------------------------------------------------------------------------------

function leave() {
  for (const dialog of [help, large]) if (dialog.open) return dialog.close();
  const left = [...selected];
  selected.clear();
  left.forEach(refresh);
  tally();
}

const ACTIONS = {
  keep: () => decide("keep"), reject: () => decide("reject"), clear: () => decide("clear"),
  undo: () => save({ verb: "undo", images: [], note: "" }),
  open: look, close: leave, all: selectPage, help: () => help.showModal(),
  left: () => move(cursor - 1), right: () => move(cursor + 1),
  back: () => { cursor = (page - 1) * PAGE; show(page - 1); gallery.scrollIntoView(); },
  forward: () => { cursor = (page + 1) * PAGE; show(page + 1); gallery.scrollIntoView(); },
};
const KEYS = {
  k: ACTIONS.keep, r: ACTIONS.reject, x: ACTIONS.reject, Delete: ACTIONS.reject, u: ACTIONS.clear,
  z: ACTIONS.undo, Enter: look, a: selectPage, "?": ACTIONS.help,
  ArrowLeft: (event) => move(cursor - 1, event.shiftKey && !large.open),
  ArrowRight: (event) => move(cursor + 1, event.shiftKey && !large.open),
  ArrowUp: (event) => move(large.open ? cursor - 1 : beyond(-1), event.shiftKey && !large.open),
  ArrowDown: (event) => move(large.open ? cursor + 1 : beyond(1), event.shiftKey && !large.open),
  Home: () => move(page * PAGE), End: () => move((page + 1) * PAGE - 1),
  PageUp: () => move(Math.max(0, page - 1) * PAGE), PageDown: () => move((page + 1) * PAGE),
  " ": () => { select(matching[cursor]); tally(); },
  n: () => { look(); element("note").focus(); },
  "/": () => { element("filters").open = true; form.elements.text.focus(); },
  Escape: leave,
};

document.addEventListener("keydown", (event) => {
  inputs += 1;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const undo = (event.ctrlKey || event.metaKey) && key === "z";
  const typing = event.target.matches("input, textarea, select");
  if (typing && key === "Escape") {
    if (large.open) element("note").blur();
    else point(cursor);
    event.preventDefault();
    return;
  }
  const pressed = event.target.matches("button, summary") && (key === "Enter" || key === " ");
  if (typing || pressed || !(key in KEYS) || event.altKey || ((event.ctrlKey || event.metaKey) && !undo)) return;
  if (help.open && key !== "Escape") return;
  event.preventDefault();
  KEYS[key](event);
});

document.addEventListener("click", (event) => {
  inputs += 1;
  const button = event.target.closest("[data-do]");
  if (button) return ACTIONS[button.dataset.do]();
  const made = event.target.closest(".tile");
  if (!made) return undefined;
  const number = Number(made.dataset.number), place = matching.indexOf(number);
  if (event.shiftKey) return move(place, true);
  point(place);
  if (event.target.matches(".mark") || event.ctrlKey || event.metaKey) select(number);
  return tally();
});
gallery.addEventListener("dblclick", (event) => event.target.closest(".tile") && look());
large.addEventListener("close", () => point(cursor));
element("note").addEventListener("change", note);
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());

const answer = await fetch("items");
set = await answer.json();
prepare();
filter();
if (matching.length) point(0);
