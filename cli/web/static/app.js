// Keeps a page up to date: where the journal has something new, the page is
// fetched again and its parts that are marked data-live are exchanged. Without
// it everything works all the same, by loading the page.

const $ = (id) => document.getElementById(id);

// Colours: as the system says, light, dark.
function colours() {
  const button = $("theme");
  if (!button) return;
  const order = ["", "light", "dark"];
  const names = ["as the system says", "light", "dark"];
  const now = () => order.indexOf(document.documentElement.dataset.theme ?? "");
  const tell = () => {
    button.setAttribute("aria-label", `Colours: ${names[now()]}. Change`);
    button.title = `Colours: ${names[now()]}`;
  };
  button.hidden = false;
  tell();
  button.addEventListener("click", () => {
    const next = order[(now() + 1) % order.length];
    if (next) document.documentElement.dataset.theme = next;
    else delete document.documentElement.dataset.theme;
    try { localStorage.setItem("theme", next); } catch { /* it holds for this page */ }
    tell();
  });
}

// Copying, also where the browser only lets one select.
async function copy(button) {
  const box = $(button.dataset.copy);
  const word = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(box.textContent.trim() + "\n");
    word.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(box);
    word.textContent = "Selected";
  }
  setTimeout(() => { word.textContent = "Copy"; }, 2000);
}

function showButtons(root) {
  for (const b of root.querySelectorAll("[data-copy][hidden]")) b.hidden = false;
}

// What a person is in the middle of is left alone.
function busy(part) {
  const at = document.activeElement;
  if (part.contains(at) && at.matches("input, textarea, select")) return true;
  const chosen = getSelection();
  if (!chosen.isCollapsed && part.contains(chosen.anchorNode)) return true;
  for (const f of part.querySelectorAll("input:not([type=hidden]), textarea")) {
    if (f.type === "checkbox" ? f.checked !== f.defaultChecked : f.value !== f.defaultValue) return true;
  }
  for (const f of part.querySelectorAll("select")) {
    if ([...f.options].some((o, i) => o.selected !== o.defaultSelected && !(i === 0 && o.selected && ![...f.options].some((p) => p.defaultSelected)))) return true;
  }
  return [...part.querySelectorAll("details[open]")].some((d) => d.querySelector("form"));
}

// How to find the focused element again in a new copy of a part.
function finder(part) {
  const at = document.activeElement;
  if (!at || at === part || !part.contains(at)) return null;
  if (at.id) return (fresh) => fresh.querySelector("#" + CSS.escape(at.id));
  if (at.matches("summary") && at.parentElement.id) return (fresh) => fresh.querySelector(`#${CSS.escape(at.parentElement.id)} > summary`);
  const all = [...part.querySelectorAll(at.tagName)];
  const index = all.indexOf(at);
  const href = at.getAttribute("href");
  return (fresh) => {
    const same = [...fresh.querySelectorAll(at.tagName)];
    return href ? same.find((e) => e.getAttribute("href") === href) : same[index];
  };
}

function exchange(old, fresh) {
  if (old.isEqualNode(fresh) || busy(old)) return;
  const find = finder(old);
  for (const d of old.querySelectorAll("details[open][id]")) {
    const same = fresh.querySelector("#" + CSS.escape(d.id));
    if (same) same.open = true;
  }
  const scrolled = [...old.querySelectorAll(".scroll, pre")].map((e) => [e.scrollLeft, e.scrollTop]);
  showButtons(fresh);
  old.replaceWith(fresh);
  [...fresh.querySelectorAll(".scroll, pre")].forEach((e, i) => {
    if (scrolled[i]) [e.scrollLeft, e.scrollTop] = scrolled[i];
  });
  find?.(fresh)?.focus({ preventScroll: true });
}

class Live {
  constructor(from) {
    this.from = from;
    this.paused = false;
    this.waiting = 0;
    this.last = 0;
    addEventListener("visibilitychange", () => (document.hidden ? this.close() : this.open(true)));
    addEventListener("pagehide", () => this.close());
    addEventListener("pageshow", (e) => e.persisted && this.open(true));
    // Times pass also where nothing happens.
    setInterval(() => this.soon(), 30000);
    if (!document.hidden) this.open(false);
  }

  say(state, word) {
    const box = $("live");
    if (!box) return;
    box.hidden = false;
    box.dataset.state = state;
    $("live-word").textContent = word;
  }

  open(look) {
    this.close();
    if (this.paused) return;
    this.say("waits", "connecting");
    this.events = new EventSource(this.from);
    this.events.onopen = () => this.say("on", "live");
    this.events.onmessage = () => this.soon();
    this.events.onerror = () => {
      this.say("off", "not connected");
      // A refusal is final: the session is over, or the daemon is another one.
      if (this.events.readyState === EventSource.CLOSED) setTimeout(() => this.look(), 3000);
    };
    if (look) this.soon();
  }

  close() {
    this.events?.close();
    this.events = undefined;
  }

  // A burst of events is one look.
  soon() {
    if (this.waiting || this.paused || document.hidden) return;
    const rest = Math.max(250, this.last + 1500 - Date.now());
    this.waiting = setTimeout(() => { this.waiting = 0; this.look(); }, rest);
  }

  async look() {
    this.last = Date.now();
    let text;
    try {
      const answer = await fetch(location.href, { headers: { "X-Sluice-Live": "1" }, cache: "no-store" });
      // The session is over, or what the page is about is gone: the page says so.
      if (answer.status === 401 || answer.status === 404) return location.reload();
      if (!answer.ok) return;
      text = await answer.text();
    } catch {
      return; // the next event, or the next half minute, tries again
    }
    if (this.paused || document.hidden) return;
    if (!this.events || this.events.readyState === EventSource.CLOSED) this.open(false);
    const page = new DOMParser().parseFromString(text, "text/html");
    const ids = (doc) => [...doc.querySelectorAll("[data-live]")].map((e) => e.id).join(" ");
    if (ids(page) === ids(document)) {
      for (const fresh of page.querySelectorAll("[data-live]")) exchange($(fresh.id), document.adoptNode(fresh));
    } else {
      exchange($("main"), document.adoptNode(page.getElementById("main")));
    }
    document.title = page.title;
    wire();
  }

  pause(on) {
    this.paused = on;
    if (on) {
      this.close();
      this.say("off", "paused");
    } else {
      this.open(true);
    }
  }
}

// Buttons that only work with this module.
let live;
function wire() {
  showButtons(document);
  const pause = $("pause");
  if (pause && live && pause.hidden) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      const on = pause.getAttribute("aria-pressed") !== "true";
      pause.setAttribute("aria-pressed", String(on));
      pause.querySelector("span").textContent = on ? "Go on" : "Pause";
      live.pause(on);
    });
  }
}

document.addEventListener("click", (e) => {
  const button = e.target.closest("[data-copy]");
  if (button) copy(button);
  const menu = document.querySelector("details.menu[open]");
  if (menu && !menu.contains(e.target)) menu.open = false;
});
document.addEventListener("keydown", (e) => {
  const menu = document.querySelector("details.menu[open]");
  if (e.key === "Escape" && menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

colours();
if (document.body.dataset.liveFrom && document.querySelector("main [data-live]")) live = new Live(document.body.dataset.liveFrom);
wire();
