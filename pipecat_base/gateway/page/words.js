// What went wrong, in words that help.

/**
 * Something that ends a call or a request. `title` says what happened, `help` what to do, `detail` is the server's own,
 * `frames` are lines of the bot's. `passing`: it is over once the server is ready. `calm`: nothing need be wrong.
 */
export class Trouble extends Error {
  constructor(title, help = "", { detail = "", status = 0, frames = [], passing = false, calm = false } = {}) {
    super(title);
    this.title = title;
    this.help = help;
    this.detail = detail;
    this.status = status;
    this.frames = frames;
    this.passing = passing;
    this.calm = calm;
  }
}

export const insecure = new Trouble(
  "This page may not use a microphone.",
  "Browsers give one only to https pages and to localhost. Serve this over https, or open it as http://localhost on the machine itself (ssh -L helps).",
);

const MICROPHONE = {
  NotAllowedError: [
    "The microphone is not allowed.",
    "Allow it for this page in the browser's address bar, or in the system's privacy settings, and connect again.",
  ],
  NotFoundError: ["No microphone was found.", "Plug one in, or choose one in the system's sound settings, and connect again."],
  NotReadableError: ["The microphone cannot be read.", "Another program may hold it. Close that, and connect again."],
};

const ANSWERS = {
  401: ["This server asks for an API key.", "Enter one of those that it was started with."],
  403: ["The server does not allow this.", "The API key, or this page's address, is not among those that it accepts."],
  404: ["The server does not know this session or route.", "The session may have ended meanwhile. Connect again."],
  429: [
    "The server is at capacity.",
    "Every session that MAX_SESSIONS allows is taken. Stop one in the list of sessions, wait until one ends, or raise MAX_SESSIONS.",
  ],
  501: ["WebRTC is not installed at the server.", "Install it with: pip install 'pipecat-base[webrtc]'."],
  504: ["The bot did not answer in time.", "The server's log says what it was doing."],
};

const NOT_READY = {
  starting: ["The server is still starting.", "The bot is being prepared. Try again in a moment."],
  draining: ["The server is shutting down.", "It takes no new calls; those that run go on. Try again once it is back."],
};

export function iceFailed(candidates) {
  return candidates
    ? new Trouble(
        "No way through the network to the bot was found (ICE failed).",
        "Is UDP blocked between here and the server? Behind a NAT, or with the bot in a container, set PIPECAT_ICE_SERVERS at the server to a TURN server.",
      )
    : new Trouble(
        "The browser found no network address to call from (ICE failed).",
        "Is this machine offline, or WebRTC blocked? Where only a relay is allowed, set PIPECAT_ICE_SERVERS at the server to a TURN server.",
      );
}

export function iceServersUnusable(error) {
  return new Trouble(
    "The server's ICE servers cannot be used.",
    "PIPECAT_ICE_SERVERS, or what ICE_CONFIG_URL answers, has an entry that browsers refuse.",
    { detail: error.message },
  );
}

export const networkLost = () =>
  new Trouble("The connection to the bot was lost.", "The network failed, or the server is gone. Connect again.");

export const unreachable = () =>
  new Trouble("The server cannot be reached.", "Is it still running? It may be restarting.", { passing: true });

export const endedAtOnce = () =>
  new Trouble("bot() has returned, and that ends the call.", "A bot that talks stays until its caller has left.", { calm: true });

/** What one can do with a server that says `/status`: who wants to talk reads this, not what is installed. */
export function ways({ transports = [], features = [], links = {}, development = false }, base) {
  const feature = (name) => features.find((found) => found.name === name);
  const found = [];
  const webrtc = transports.includes("webrtc");
  const needs = feature("SmallWebRTC Transport")?.required;
  found.push({ title: "Talk on this page", text: webrtc ? "Press Connect and speak." : `Not installed${needs ? `: ${needs}` : ""}.` });
  if (links.client)
    found.push({ title: "Talk in pipecat's own client", text: "Open the prebuilt client", href: links.client.slice(1) });
  if (transports.includes("twilio"))
    found.push({
      title: `Be called by phone${development ? ", through a tunnel" : ""}: the webhook`,
      address: new URL("telephony/twilio", base).href,
    });
  if (development) found.push({ title: "Try a phone call from a terminal", address: "pipecat-base call FILE.wav" });
  if (feature("WhatsApp Integration")?.status === "ENABLED")
    found.push({ title: "Be called on WhatsApp: the webhook", address: new URL("whatsapp", base).href });
  found.push({ title: "Call from your own page or app", address: `POST ${new URL("start", base).href}` });
  return found;
}

/** How the bot failed: what it raised, and where, if the server says that here. */
export function botRaised({ message, mistake }) {
  if (mistake) return new Trouble(mistake.said, "", { frames: mistake.frames });
  return new Trouble(message.replace(/; its log .*/, "."), "The server's log has the traceback.");
}

export const botFailed = (detail) =>
  new Trouble("The bot reported an error that ends it.", "The server's log has the traceback.", { detail });

/** Why the newest code is not served: what the terminal says, if the server says it here; null when all is well. */
export function codeBroken({ problem, mistake, status }) {
  if (!problem) return null;
  if (!mistake) return new Trouble(problem);
  const meanwhile = status === "ready" ? "New calls still run the code before it." : "";
  return new Trouble(mistake.message, mistake.remedy, {
    frames: mistake.frames,
    detail: [mistake.code, meanwhile].filter(Boolean).join(" · "),
  });
}

/** Why there is no microphone. */
export function noMicrophone(error) {
  if (!window.isSecureContext || !navigator.mediaDevices) return insecure;
  const [title, help] = MICROPHONE[error.name] ?? ["The microphone cannot be used.", "Try another one, or another browser."];
  return new Trouble(title, help, { detail: error.name in MICROPHONE ? "" : `${error.name}: ${error.message}` });
}

/** Why the server refused. Its errors are `{reason, message}`; those of the bot's own server `{error: {code, message}}`. */
export function refused(status, body) {
  const broken = codeBroken(body ?? {});
  if (broken) return Object.assign(broken, { status, passing: true, answer: body });
  const inner = typeof body?.error === "object" && body.error !== null ? body.error : body ?? {};
  const detail = typeof inner.message === "string" ? inner.message : "";
  let words = ANSWERS[status];
  if (status === 503) words = NOT_READY[inner.reason ?? inner.code] ?? NOT_READY.starting;
  words ??= status >= 500 ? ["The server failed to answer.", "Its log says why."] : ["The server refused this.", ""];
  return new Trouble(words[0], words[1], { detail: detail || `HTTP ${status}`, status, passing: status === 503 });
}
