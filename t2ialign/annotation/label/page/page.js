// The label page: shows two pictures, sends what the person says, and is told what comes next.
//
// Law: nothing is decided here. What is shown is the server's state; an answer counts when the server has it. The token
// comes in the address behind #, which browsers send to nobody, and goes out in a header alone.
"use strict";

const token = location.hash.slice(1);
const at = (id) => document.getElementById(id);
const sides = ["left", "right"];
const stacked = matchMedia("(max-aspect-ratio: 4/5)");
const SMALL = 257; // pictures below this many pixels are enlarged by repeating pixels
const LONG = 90; // letters from which a prompt is set smaller
const loaded = new Map(); // "12/left" to a promise of an object URL

let state = null;
let busy = true;
let since = 0; // when the pictures were there
let over = false; // the person has finished

class Refused extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

async function ask(path, body) {
  const options = { headers: { "X-Label-Token": token }, cache: "no-store", credentials: "omit" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, told.error || `error ${answer.status}`);
  }
  return answer;
}

// ---- pictures

function picture(number, side) {
  const key = `${number}/${side}`;
  if (!loaded.has(key)) {
    const url = ask(`/picture/${key}`).then((answer) => answer.blob()).then((blob) => URL.createObjectURL(blob));
    url.catch(() => loaded.delete(key));
    loaded.set(key, url);
  }
  return loaded.get(key);
}

function forget(kept) {
  for (const [key, url] of loaded) {
    if (!kept.includes(Number(key.split("/")[0]))) {
      loaded.delete(key);
      url.then((each) => URL.revokeObjectURL(each)).catch(() => {});
    }
  }
}

async function showPicture(number, side) {
  const url = await picture(number, side);
  const image = at(side).querySelector("img");
  image.src = url;
  await image.decode();
  image.classList.toggle("small", Math.max(image.naturalWidth, image.naturalHeight) < SMALL);
}

// ---- what is seen

function nameSides() {
  const names = stacked.matches ? ["upper", "lower"] : ["left", "right"];
  const keys = stacked.matches ? ["↑", "↓"] : ["←", "→"];
  sides.forEach((side, index) => {
    const button = at(side);
    button.querySelector("img").alt = `The ${names[index]} picture`;
    button.querySelector(".name").textContent = names[index];
    button.querySelector("kbd").textContent = keys[index];
    button.setAttribute("aria-label", `Choose the ${names[index]} picture`);
    button.setAttribute("aria-keyshortcuts", stacked.matches ? ["ArrowUp", "ArrowDown"][index] : ["ArrowLeft", "ArrowRight"][index]);
    button.dataset.name = names[index];
  });
}

function setBusy(now) {
  busy = now;
  const asked = Boolean(state && state.question);
  at("pair").setAttribute("aria-busy", String(now));
  at("undo").disabled = !state || !state.can_undo;
  for (const id of ["tie", "skip"]) at(id).disabled = !asked;
}

function showProgress() {
  at("bar").max = Math.max(1, state.total);
  at("bar").value = state.answered;
  at("bar").setAttribute("aria-valuetext", `${state.answered} of ${state.total}`);
  at("ask").textContent = state.ask;
  at("count").textContent = `${state.answered} of ${state.total}`;
  at("who").textContent = state.user;
  document.title = `${state.answered} of ${state.total} · Label pairs`;
}

function tell(text) {
  at("status").textContent = text;
}

function fail(error) {
  let text = "The program does not answer. Start the same command again and open the address that it prints; nothing is lost.";
  if (error instanceof Refused) {
    text = error.code === 403 ? "This page is of an earlier run. Open the address that the program printed." : error.message;
  }
  at("problem-text").textContent = text;
  at("problem").hidden = false;
  setBusy(false);
}

function showEnd(title, text) {
  at("pair").hidden = true;
  at("prompt").textContent = "";
  at("end-title").textContent = title;
  at("end-text").textContent = text;
  at("end").hidden = false;
}

const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;

async function show(said) {
  showProgress();
  at("actions").hidden = false;
  if (!state.question) {
    for (const id of ["tie", "skip"]) at(id).hidden = true;
    const passed = state.passed_over ? ` ${counted(state.passed_over, "question", "questions")} could not be shown.` : "";
    showEnd("All done", `${counted(state.labelled, "pair", "pairs")} labelled. Finish ends the program in the terminal, which says what comes next.${passed}`);
    tell(`${said} All done.`);
    at("finish").className = "primary";
    at("end-title").focus();
    setBusy(false);
    return;
  }
  const { number, prompt } = state.question;
  await Promise.all(sides.map((side) => showPicture(number, side)));
  for (const id of ["tie", "skip"]) at(id).hidden = false;
  at("finish").className = "quiet";
  at("end").hidden = true;
  at("pair").hidden = false;
  at("prompt").textContent = prompt;
  at("prompt").classList.toggle("long", prompt.length > LONG);
  for (const side of sides) at(side).classList.remove("picked");
  tell(`${said} ${state.answered + 1} of ${state.total}: ${prompt}`.trim());
  since = performance.now();
  setBusy(false);
  forget([number, state.next]);
  if (state.next !== null) for (const side of sides) picture(state.next, side).catch(() => {});
}

// ---- what is said

async function step(work, said) {
  if (busy || over) return;
  setBusy(true);
  try {
    state = await (await work()).json();
    at("problem").hidden = true;
    await show(said);
  } catch (error) {
    for (const side of sides) at(side).classList.remove("picked");
    if (error instanceof Refused && (error.code === 409 || error.code === 404)) {
      busy = false;
      await reload("The page was brought up to date.");
    } else {
      fail(error);
    }
  }
}

function say(answer) {
  if (busy || over || !state || !state.question) return;
  const seconds = (performance.now() - since) / 1000;
  const words = { tie: "A tie.", skip: "Skipped." };
  if (sides.includes(answer)) {
    at(answer).classList.add("picked");
    words[answer] = `The ${at(answer).dataset.name} picture.`;
  }
  step(() => ask("/answer", { question: state.question.number, answer, seconds }), words[answer]);
}

function undo() {
  if (state && state.can_undo) step(() => ask("/undo", {}), "Taken back.");
}

async function reload(said) {
  busy = false;
  await step(() => ask("/state"), said);
}

async function finish() {
  if (busy || over) return;
  try {
    await ask("/finish", {});
  } catch (error) {
    fail(error);
    return;
  }
  over = true;
  at("actions").hidden = true;
  showEnd("Thank you", "All answers are kept. You may close this page; the terminal says what comes next.");
  at("end-title").focus();
  tell("Finished.");
}

const KEYS = {
  ArrowLeft: () => say("left"),
  ArrowRight: () => say("right"),
  t: () => say("tie"),
  s: () => say("skip"),
  u: undo,
  Backspace: undo,
};

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.isComposing || event.ctrlKey || event.altKey || event.metaKey) return;
  const upright = stacked.matches ? { ArrowUp: KEYS.ArrowLeft, ArrowDown: KEYS.ArrowRight } : {};
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = KEYS[name] || upright[name];
  if (!act) return;
  event.preventDefault();
  act();
});

for (const side of sides) at(side).addEventListener("click", () => say(side));
at("tie").addEventListener("click", () => say("tie"));
at("skip").addEventListener("click", () => say("skip"));
at("undo").addEventListener("click", undo);
at("finish").addEventListener("click", finish);
at("retry").addEventListener("click", () => reload(""));
addEventListener("hashchange", () => location.reload());
stacked.addEventListener("change", nameSides);
nameSides();
reload("");
