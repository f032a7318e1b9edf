// The server's routes. Addresses are relative, so that the page works below a path of a proxy too.

import { refused, unreachable } from "./words.js";

const CLOSING = 3_000; // how long a session whose bot has ended may take to close what it holds
const KEY = "pipecat-base.key";

export class Server {
  #publicKey = null; // may not list all sessions: asking again would be refused again

  /** For this tab alone. */
  get key() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  status() {
    return this.#ask("GET", "status");
  }

  /** All of them; with a public key only our own, if it goes on: `{sessions, all}`. */
  async sessions(own) {
    try {
      if (this.#publicKey !== this.key)
        return { sessions: (await this.#ask("GET", "sessions")).sessions ?? [], all: true };
    } catch (error) {
      if (error.status !== 403) throw error;
      this.#publicKey = this.key;
    }
    const ours = own ? await this.#ask("GET", `sessions/${encodeURIComponent(own)}`).catch(() => null) : null;
    return { sessions: ours && ours.state !== "ended" ? [ours] : [], all: false };
  }

  /** How a session has ended: `{outcome, message}`; null when it goes on without us, or when nobody knows. */
  async end(sessionId) {
    const deadline = performance.now() + CLOSING;
    while (performance.now() < deadline) {
      const session = await this.#ask("GET", `sessions/${encodeURIComponent(sessionId)}`).catch(() => null);
      if (session === null || session.state === "ended") return session;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    return null;
  }

  /** Outlives the page: a reload takes its session with it. */
  stop(sessionId) {
    return this.#ask("DELETE", `sessions/${encodeURIComponent(sessionId)}`, undefined, true);
  }

  start(body) {
    return this.#ask("POST", "start", { transport: "webrtc", enableDefaultIceServers: false, body });
  }

  offer(sessionId, offer) {
    return this.#ask("POST", `sessions/${encodeURIComponent(sessionId)}/api/offer`, offer);
  }

  trickle(sessionId, candidates) {
    return this.#ask("PATCH", `sessions/${encodeURIComponent(sessionId)}/api/offer`, candidates);
  }

  async #ask(method, path, content, keepalive = false) {
    const headers = {};
    if (content !== undefined) headers["Content-Type"] = "application/json";
    if (this.key) headers.Authorization = `Bearer ${this.key}`;
    let response;
    try {
      response = await fetch(path, { method, headers, keepalive, cache: "no-store", body: JSON.stringify(content) });
    } catch {
      throw unreachable();
    }
    const body = await response.json().catch(() => null);
    if (!response.ok) throw refused(response.status, body);
    return body ?? {};
  }
}
