// The page: what its buttons do, and what it shows of the call and of the server.

import { Call } from "./call.js";
import { byId, duration, setText } from "./elements.js";
import { Events, Sessions, showFeatures, showWays, Transcript } from "./lists.js";
import { Meter } from "./meters.js";
import { Microphones } from "./microphones.js";
import { showNotice } from "./notice.js";
import { clientReady, Conversation, isRtvi, textMessage } from "./rtvi.js";
import { Server } from "./server.js";
import { botFailed, botRaised, codeBroken, endedAtOnce, insecure, Trouble, ways } from "./words.js";

const REFRESH = 2_000;
const REFRESH_IN_DEVELOPMENT = 1_000;
const STATUS_EVERY = 5; // refreshes; in development each
const AT_ONCE = 5_000;
const BODY = "pipecat-base.body";

const STATES = {
  microphone: "Waiting for the microphone…",
  starting: "Starting the bot…",
  connecting: "Connecting…",
  connected: "Connected",
  interrupted: "The network is interrupted, waiting for it…",
};
const ENDS = {
  failed: "The bot failed",
  cancelled: "The session was stopped",
  expired: "The session's time was up",
  drained: "The server was shut down",
};
const SERVER = {
  ready: "Ready",
  old: "Ready, with old code",
  broken: "Waiting for a change",
  starting: "Starting",
  draining: "Shutting down",
  locked: "Needs a key",
  gone: "Unreachable",
};
const REFUSALS = { 401: "locked", 503: "starting" };

const server = new Server();
const transcript = new Transcript(byId("transcript"), byId("transcript-scroll"), byId("transcript-empty"));
const events = new Events(byId("events"), byId("events-scroll"), byId("events-empty"), byId("events-count"));
const sessions = new Sessions(byId("sessions"), byId("sessions-empty"), byId("sessions-old"), stopSession);
const meters = { in: new Meter(byId("in")), out: new Meter(byId("out")) };
const microphones = new Microphones(byId("microphone-field"), byId("microphone"), changeMicrophone);
const sound = byId("sound");

let call = null;
let conversation = new Conversation();
let audio = null;
let connectOnceKeyIsThere = false;
let answered = false; // by any message of the bot
let complained = false; // it told of an error that ends it
let stopped = null; // the session that was stopped in the list
let trouble = null; // the one that is shown
let outcome = null; // of the call's session, where its bot's end was that of the call

// --- the call

function connect() {
  const body = readBody();
  if (body === undefined) return;
  takeTypedKey();
  showTrouble(null);
  transcript.clear();
  events.clear();
  conversation = new Conversation();
  answered = false;
  complained = false;
  outcome = null;
  audio = new AudioContext();
  call = new Call(server, microphones);
  call.addEventListener("change", showCall);
  call.addEventListener("open", () => refresh({ all: true })); // now it is in the list
  call.addEventListener("microphone", ({ detail }) => meters.in.watch(audio, detail));
  call.addEventListener("sound", ({ detail }) => play(detail));
  call.addEventListener("open", () => send(clientReady()));
  call.addEventListener("message", ({ detail }) => receive(detail));
  call.addEventListener("end", ({ detail }) => ended(detail));
  call.start(body);
}

function ended(error) {
  meters.in.stop();
  meters.out.stop();
  audio.close();
  sound.srcObject = null;
  if (error) report(error, { ofCall: true });
  showCall();
  refresh();
  if (call.endedBy !== "user" && call.sessionId && !wasStopped()) showOutcome(call, performance.now());
}

/** Whether the bot's end was the reason, and its own. */
async function showOutcome(over, endedAt) {
  const told = await server.end(over.sessionId);
  if (call !== over || told === null) return;
  if (told.outcome === "drained" && !over.connectedAt) return connect(); // newer code was loaded before it had its bot
  outcome = told.outcome;
  showCall();
  refresh(); // it is in the list no longer
  const brief = call.endedBy === "bot" && !answered && endedAt - over.connectedAt < AT_ONCE;
  if (outcome === "failed" && !complained) showTrouble(botRaised(told));
  else if (outcome === "completed" && brief) showTrouble(endedAtOnce());
}

function showCall() {
  const live = call !== null && call.state !== "ended";
  const connected = live && call.connectedAt > 0;
  setText(byId("state"), live ? STATES[call.state] : farewell());
  byId("call").dataset.state = call?.state ?? "idle";
  byId("call").dataset.outcome = outcome ?? "";
  setText(byId("connect"), live ? "Disconnect" : "Connect");
  byId("connect").className = live ? "stop" : "primary";
  byId("mute").disabled = !connected;
  if (!connected) showMuted(false);
  byId("text").disabled = byId("send").disabled = !connected;
  setText(byId("ice"), live ? call.ice : "–");
  if (!live) for (const name of ["round-trip", "jitter", "lost", "time"]) setText(byId(name), name === "time" ? "" : "–");
  document.title = `${connected ? "● " : ""}${byId("bot").textContent} – pipecat-base`;
}

function farewell() {
  if (call === null || call.endedBy === "user") return "Not connected";
  if (outcome === "failed") return ENDS.failed;
  if (call.endedBy === "trouble") return call.connectedAt ? "The call was cut off" : "Not connected";
  return wasStopped() ? ENDS.cancelled : (ENDS[outcome] ?? "The bot ended the call");
}

const wasStopped = () => stopped !== null && stopped === call.sessionId;

async function changeMicrophone(deviceId) {
  if (call === null || call.state === "ended") return microphones.choose(deviceId);
  try {
    await call.changeMicrophone(deviceId);
    showTrouble(null);
  } catch (error) {
    report(error);
  }
}

async function play(stream) {
  sound.srcObject = stream;
  meters.out.watch(audio, stream);
  try {
    await sound.play();
  } catch (error) {
    if (error.name !== "NotAllowedError") return; // the call ended before it began to play
    showTrouble(new Trouble("The browser holds the bot's sound back.", "Click anywhere on this page to hear it."));
    addEventListener("pointerdown", () => showTrouble(null) || sound.play().catch(() => {}), { once: true });
  }
}

async function showFigures() {
  if (!call?.connectedAt || call.state === "ended") return;
  const { roundTrip, jitter, lost, received } = await call.figures();
  const milliseconds = (seconds) => (seconds === undefined ? "–" : `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`);
  if (call.state === "ended") return;
  setText(byId("round-trip"), milliseconds(roundTrip));
  setText(byId("jitter"), milliseconds(jitter));
  setText(byId("lost"), received ? `${((100 * Math.max(0, lost)) / (received + Math.max(0, lost))).toFixed(1)} %` : "–");
  setText(byId("time"), duration((performance.now() - call.connectedAt) / 1000));
}

// --- RTVI

function send(message) {
  if (!call?.send(message)) return false;
  events.show("out", message);
  return true;
}

function receive(message) {
  answered = true;
  events.show("in", message);
  if (!isRtvi(message)) return;
  const line = conversation.read(message);
  if (line) transcript.show(line);
  if (message.type !== "error" || !message.data?.fatal) return;
  complained = true;
  showTrouble(botFailed(message.data.error));
}

function sendText(event) {
  event.preventDefault();
  const content = byId("text").value.trim();
  if (!content) return;
  const message = textMessage(content);
  if (!send(message)) return;
  transcript.show(conversation.typed(message));
  byId("text").value = "";
}

// --- what is entered

/** The body for the bot, or undefined when it is not JSON. */
function readBody() {
  const field = byId("body");
  sessionStorage.setItem(BODY, field.value);
  field.removeAttribute("aria-invalid");
  if (!field.value.trim()) return {};
  try {
    return JSON.parse(field.value);
  } catch (error) {
    field.closest("details").open = true;
    field.setAttribute("aria-invalid", "true");
    field.focus();
    showTrouble(new Trouble("The body for the bot is not JSON.", "Correct it or empty it, and connect again.", { detail: error.message }));
    return undefined;
  }
}

/** A key may have been typed and not sent. */
function takeTypedKey() {
  if (byId("key-form").hidden || !byId("key").value.trim()) return;
  server.key = byId("key").value.trim();
  byId("key").value = "";
  byId("key-form").hidden = true;
  isRefused = false;
}

async function useKey(event) {
  event.preventDefault();
  takeTypedKey();
  showTrouble(null);
  await refresh({ all: true });
  if (!byId("key-form").hidden) return byId("key").focus();
  byId("connect").focus();
  if (connectOnceKeyIsThere) connect();
  connectOnceKeyIsThere = false;
}

/** Nothing is wrong before one was given. */
function askForKey(error) {
  if (!byId("key-form").hidden) return;
  byId("key-form").hidden = false;
  if (server.key) showTrouble(new Trouble("This server does not accept that API key.", error.help));
}

function showMuted(muted) {
  byId("mute").setAttribute("aria-pressed", String(muted));
  setText(byId("mute"), muted ? "Unmute" : "Mute");
}

/** Something that was asked for failed. */
function report(error, { ofCall = false } = {}) {
  if (error.status !== 401) return showTrouble(error);
  connectOnceKeyIsThere = ofCall;
  askForKey(error);
  byId("key").focus();
}

function showTrouble(error) {
  const known = error === null || error instanceof Trouble;
  if (!known) console.error(error);
  trouble = known ? error : new Trouble("The call could not be made.", "", { detail: `${error.name}: ${error.message}` });
  // What the code's own notice says is said once.
  showNotice(byId("trouble"), trouble?.passing && !byId("problem").hidden ? null : trouble);
}

// --- the server

let round = 0;
let inDevelopment = false;
let shown = ""; // of what the server says it can do
let failures = 0; // in a row
let refreshing = null;
let isRefused = false; // the server would refuse to tell more, and log that, until there is a key

async function refresh({ all = false } = {}) {
  clearTimeout(refreshing);
  if (isRefused && !all) return;
  refreshing = setTimeout(refresh, inDevelopment ? REFRESH_IN_DEVELOPMENT : REFRESH);
  if (document.visibilityState !== "visible") return;
  const connecting = call?.state === "connecting" ? call : null;
  try {
    if (all || inDevelopment || round++ % STATUS_EVERY === 0) showStatus(await server.status());
    const { sessions: running, all: areAll } = await server.sessions(call?.sessionId);
    sessions.show(running, call?.state === "ended" ? null : call?.sessionId, areAll);
    failures = 0;
    isRefused = false;
    // Nothing else tells of a bot that has ended before there is a connection.
    if (connecting && !running.some(({ sessionId }) => sessionId === connecting.sessionId)) connecting.lose();
  } catch (error) {
    isRefused = error.status === 401 || error.status === 403;
    if (error.status === 401) askForKey(error);
    if (error.answer) showNotice(byId("problem"), error);
    if (error.answer && trouble?.passing) showTrouble(null);
    showServer(error.answer ? "broken" : REFUSALS[error.status] ?? "gone");
    failures += 1;
    if (error.status === 401) sessions.hide("They are shown once you have entered a key.");
    else if (failures > 1) sessions.hide("The server does not tell."); // not for one that was lost
    round = 0;
  }
}

function showStatus(told) {
  const { status, bot, features = [], development = false } = told;
  inDevelopment = development;
  showServer(status === "ready" && told.problem ? "old" : status);
  showNotice(byId("problem"), codeBroken(told));
  if (status === "ready" && trouble?.passing) showTrouble(null);
  setText(byId("bot"), bot || "pipecat-base");
  if (JSON.stringify(told) === shown) return; // what is selected there stays so
  shown = JSON.stringify(told);
  byId("ways-card").hidden = false;
  showWays(byId("ways"), ways(told, document.baseURI));
  byId("features-card").hidden = features.length === 0;
  showFeatures(byId("features"), byId("features-count"), features);
}

function showServer(status) {
  byId("server").dataset.status = status;
  setText(byId("server"), SERVER[status] ?? status);
}

async function stopSession(sessionId) {
  stopped = sessionId;
  try {
    await server.stop(sessionId);
  } catch (error) {
    if (error.status !== 404) report(error);
  }
  await refresh();
}

// --- begin

byId("connect").addEventListener("click", () => (call && call.state !== "ended" ? call.hangUp() : connect()));
byId("mute").addEventListener("click", () => {
  const muted = byId("mute").getAttribute("aria-pressed") !== "true";
  call.mute(muted);
  showMuted(muted);
});
byId("text-form").addEventListener("submit", sendText);
byId("key-form").addEventListener("submit", useKey);
byId("clear").addEventListener("click", () => events.clear());
document.addEventListener("visibilitychange", () => refresh());
addEventListener("pagehide", () => call?.leave());
setInterval(showFigures, 1_000);
byId("body").value = sessionStorage.getItem(BODY) ?? "";
if (!window.isSecureContext) showTrouble(insecure);
refresh();
