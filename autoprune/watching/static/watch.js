// The live page: asks the server for the parts of a page once a second, and replaces those that have changed.
"use strict";

const EVERY = 1000; // milliseconds between two questions
const LIMITS = ["max_evals", "max_tokens", "max_time"];
const byId = (id) => document.getElementById(id);

let seen = ""; // the version of what is shown
let shown = null; // the name of the run that is shown
let state = ""; // what the run is at, which is also said to those who cannot see it
let timer = 0;

const wanted = () => {
  try {
    return decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  } catch {
    return "";
  }
};

async function update() {
  clearTimeout(timer);
  const name = wanted();
  try {
    const version = name === shown ? seen : "";
    const answer = await fetch(`/api/page?name=${encodeURIComponent(name)}&seen=${version}`);
    if (answer.status === 200) {
      const page = await answer.json();
      if (name === wanted()) draw(page, answer.headers.get("X-Version"));
      state = page.state.toLowerCase();
    } else if (answer.status === 403) {
      tell("The server was started anew: open the address that it has printed.", false);
    } else if (answer.status !== 204) {
      tell((await answer.json()).problem, false);
    }
    if (answer.ok) tell(state ? `Live: ${state}` : "Live", true);
  } catch {
    tell("The server does not answer. The search goes on without it.", false);
  }
  timer = setTimeout(update, EVERY);
}

function tell(text, live) {
  if (byId("told").textContent !== text) byId("told").textContent = text;
  byId("beat").className = live ? "live" : "lost";
}

function draw(page, version) {
  const focused = key(document.activeElement);
  if (page.name !== shown) {
    byId("parts").replaceChildren();
    byId("problem").textContent = "";
  }
  const { head, ...parts } = page.parts;
  replace(byId("head"), head); // the server has escaped what is a user's
  for (const [name, html] of Object.entries(parts)) replace(part(name), html);
  for (const old of [...byId("parts").children]) if (!(old.id.slice(5) in parts)) old.remove();
  control(page, page.name !== shown);
  if (focused && document.activeElement === document.body) {
    const again = [...document.querySelectorAll("a[href], [tabindex]")].find((element) => key(element) === focused);
    if (again) again.focus({ preventScroll: true });
  }
  document.title = `${page.title} - autoprune watch`;
  [shown, seen] = [page.name, version];
}

// what tells an element from others that can have the focus, also after it was replaced
const key = (element) => element && (element.getAttribute("href") || element.getAttribute("aria-label"));

function part(name) {
  let found = byId(`part-${name}`);
  if (!found) {
    found = document.createElement("div");
    found.id = `part-${name}`;
    byId("parts").append(found);
  }
  return found;
}

function replace(element, html) {
  if (element.dataset.html === html.length + html) return;
  element.dataset.html = html.length + html;
  element.innerHTML = html;
}

function control(page, isNew) {
  byId("control").hidden = !page.control || !Object.keys(page.limits).length;
  byId("stop").disabled = !page.can.stop;
  byId("resume").disabled = byId("limits").disabled = !page.can.resume;
  for (const name of LIMITS) {
    const field = byId("control").elements[name];
    if (isNew || !page.can.resume) field.value = page.limits[name] ?? "";
  }
}

async function post(what, body) {
  byId("problem").textContent = "";
  try {
    const answer = await fetch(`/api/${what}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name: wanted(), ...body }),
    });
    if (!answer.ok) byId("problem").textContent = (await answer.json()).problem;
  } catch {
    byId("problem").textContent = "The server does not answer.";
  }
  update();
}

byId("stop").addEventListener("click", () => post("stop", {}));
byId("control").addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = LIMITS.map((name) => [name, byId("control").elements[name]]).filter(([, field]) => field.value !== "");
  post("resume", Object.fromEntries(fields.map(([name, field]) => [name, Number(field.value)])));
});
window.addEventListener("hashchange", update);
document.addEventListener("visibilitychange", () => document.hidden || update());
update();
