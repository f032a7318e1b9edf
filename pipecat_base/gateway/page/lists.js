// What the page lists: lines of the transcript, RTVI events, sessions, features.

import { atEnd, clock, duration, make, setText } from "./elements.js";

const LINES = 500;
const EVENTS = 300;

export class Transcript {
  #list;
  #scroll;
  #empty;
  #lines = new Map();

  constructor(list, scroll, empty) {
    this.#list = list;
    this.#scroll = scroll;
    this.#empty = empty;
  }

  clear() {
    this.#lines.clear();
    this.#list.replaceChildren();
    this.#empty.hidden = false;
  }

  show({ key, who, text, rest, note, open }) {
    this.#empty.hidden = true;
    atEnd(this.#scroll, () => {
      const line = this.#lines.get(key) ?? this.#add(key, who);
      line.className = open ? `line ${who} open` : `line ${who}`;
      line.querySelector(".who").textContent = who === "user" ? "You" : "Bot";
      const [said, unsaid] = [text.trim(), rest.trim()];
      setText(line.querySelector(".note"), unsaid ? "grey: not said yet" : note);
      setText(line.querySelector(".text"), said);
      setText(line.querySelector(".rest"), said && unsaid ? ` ${unsaid}` : unsaid);
    });
  }

  #add(key, who) {
    const time = make("time", "", clock());
    const head = make("div", "head", make("span", "who"), make("span", "note"), time);
    const line = make("li", who, head, make("p", "", make("span", "text"), make("span", "rest")));
    this.#lines.set(key, line);
    this.#list.append(line);
    if (this.#lines.size > LINES) {
      const [oldest, element] = this.#lines.entries().next().value;
      this.#lines.delete(oldest);
      element.remove();
    }
    return line;
  }
}

export class Events {
  #list;
  #scroll;
  #empty;
  #count;
  #total = 0;

  constructor(list, scroll, empty, count) {
    this.#list = list;
    this.#scroll = scroll;
    this.#empty = empty;
    this.#count = count;
  }

  clear() {
    this.#total = 0;
    this.#list.replaceChildren();
    this.#empty.hidden = false;
    setText(this.#count, "");
  }

  /** `way` is "in" or "out". */
  show(way, message) {
    const time = make("time", "", clock({ fractionalSecondDigits: 3 }));
    const arrow = make("span", "way", way === "in" ? "←" : "→");
    arrow.setAttribute("role", "img");
    arrow.setAttribute("aria-label", way === "in" ? "received" : "sent");
    const brief = make("span", "brief", summary(message));
    const entry = make("details", way, make("summary", "", time, arrow, make("b", "", String(message.type ?? "?")), brief));
    // Most are never opened.
    entry.addEventListener("toggle", () => entry.append(make("pre", "", JSON.stringify(message, null, 2))), { once: true });
    this.#empty.hidden = true;
    atEnd(this.#scroll, () => {
      this.#list.append(make("li", "", entry));
      if (this.#list.childElementCount > EVENTS) this.#list.firstElementChild.remove();
    });
    this.#total += 1;
    setText(this.#count, this.#total > EVENTS ? `last ${EVENTS} of ${this.#total}` : `${this.#total}`);
  }
}

function summary({ data }) {
  if (data === undefined || data === null) return "";
  return typeof data.text === "string" ? data.text : JSON.stringify(data).slice(0, 200);
}

/** Rows stay while their sessions do, so that a button keeps its focus. */
export class Sessions {
  #list;
  #empty;
  #old;
  #stop;
  #rows = new Map();

  /**
   * `old` is where it is said that old code goes on; `stop` is called with a session's id, and resolves once that has
   * been asked to stop.
   */
  constructor(list, empty, old, stop) {
    this.#list = list;
    this.#empty = empty;
    this.#old = old;
    this.#stop = stop;
  }

  /** Unless `all`, those of others are not known. */
  show(sessions, own, all = true) {
    setText(this.#empty, all ? "None is running." : "A public key shows only the session of this page.");
    this.#replace(sessions, own);
  }

  /** It is not known what runs: `why`. */
  hide(why) {
    setText(this.#empty, why);
    this.#replace([]);
  }

  #replace(sessions, own) {
    const gone = new Set(this.#rows.keys());
    for (const session of sessions) {
      gone.delete(session.sessionId);
      const row = this.#rows.get(session.sessionId) ?? this.#add(session.sessionId);
      setText(row.querySelector(".state"), session.state);
      row.querySelector(".state").dataset.state = session.state;
      setText(row.querySelector(".about"), `${session.transport}, ${duration(session.age)}`);
      row.querySelector(".own").hidden = session.sessionId !== own;
      row.querySelector(".outdated").hidden = !session.outdated;
    }
    for (const sessionId of gone) {
      const row = this.#rows.get(sessionId);
      if (row.contains(document.activeElement)) this.#list.focus();
      row.remove();
      this.#rows.delete(sessionId);
    }
    this.#empty.hidden = sessions.length > 0;
    const old = sessions.filter(({ outdated }) => outdated).length;
    setText(this.#old, old ? oldCode(old) : "");
    this.#old.hidden = old === 0;
  }

  #add(sessionId) {
    const name = make("code", "", sessionId.slice(0, 8));
    name.title = sessionId;
    const button = make("button", "quiet", "Stop");
    button.type = "button";
    button.setAttribute("aria-label", `Stop session ${sessionId.slice(0, 8)}`);
    button.addEventListener("click", async () => {
      button.disabled = true;
      await this.#stop(sessionId).finally(() => (button.disabled = false));
    });
    const first = make("div", "", name, make("span", "own", "this call"), make("span", "state"), make("span", "outdated", "old code"));
    const row = make("li", "", make("div", "session", first, make("span", "about")), button);
    this.#rows.set(sessionId, row);
    this.#list.append(row);
    return row;
  }
}

const oldCode = (count) =>
  `The code before your last change still runs for ${count === 1 ? "one session" : `${count} sessions`}. New calls get the new code.`;

/** What one can do with this server: pairs of a title and a text, of which some are addresses. */
export function showWays(list, ways) {
  list.replaceChildren(
    ...ways.map(({ title, text, address, href }) => {
      const content = address ? make("code", "", address) : text;
      const link = href ? make("a", "", content) : content;
      if (href) link.href = href;
      return make("div", "", make("dt", "", title), make("dd", "", link));
    }),
  );
}

const STATUS = { ENABLED: "on", DISABLED: "off", ERROR: "error", MISSING_CONFIG: "not configured" };

export function showFeatures(list, count, features) {
  const on = features.filter(({ status }) => status === "ENABLED").length;
  setText(count, `${on} of ${features.length} on`);
  list.replaceChildren(
    ...features.map(({ name, status, required, reason }) => {
      const why = [reason, required && status !== "ENABLED" ? `needs ${required}` : ""].filter(Boolean).join("; ");
      const row = make("li", "", make("span", "name", name), make("span", "status", STATUS[status] ?? status));
      row.dataset.status = status;
      if (why) row.append(make("span", "why", why));
      return row;
    }),
  );
}
