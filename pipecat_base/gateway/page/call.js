// One call to the bot over SmallWebRTC: from the microphone's permission to the last packet.

import { iceFailed, iceServersUnusable, networkLost } from "./words.js";

const CONNECT_TIMEOUT = 20_000;
const PING = 1_000; // pipecat takes a client that sent one before for gone after three seconds without
const TRICKLE = 100;
const MICROPHONE = 0; // the only transceiver, as signalling messages number them

/** Thrown within start() once the call is over, whoever ended it. */
class Over extends Error {}

/**
 * Emits "change" (its `state` did), "microphone" and "sound" (a stream: ours, the bot's), "open" (messages can be sent),
 * "message" (JSON from the bot) and "end" (an error, or null when the bot or the user ended it), each in `detail`.
 */
export class Call extends EventTarget {
  state = "idle"; // microphone, starting, connecting, connected, interrupted, ended
  endedBy = ""; // user, bot, trouble
  sessionId = null;
  microphone = null;
  connectedAt = 0;
  #server;
  #microphones;
  #pc = null;
  #channel = null;
  #pcId = null;
  #candidates = [];
  #gathered = 0;
  #timers = new Set();
  #toldToStop = false;
  #changes = 0;

  constructor(server, microphones) {
    super();
    this.#server = server;
    this.#microphones = microphones;
  }

  /** Resolves once connected, or ended. */
  async start(body) {
    try {
      this.#to("microphone");
      const opened = await this.#microphones.open();
      if (this.microphone) stop(opened); // another one was chosen meanwhile
      else this.#use(opened);
      this.#to("starting");
      const started = await this.#server.start(body);
      this.sessionId = started.sessionId;
      this.#to("connecting");
      this.#open(started.iceConfig?.iceServers ?? []);
      await this.#negotiate();
    } catch (error) {
      this.#end("trouble", error);
    }
  }

  hangUp() {
    this.#end("user");
  }

  /** The page goes away. What is connected tells the bot itself, if there is time for it; this way nothing is left. */
  leave() {
    if (this.state === "ended") return;
    this.#stopSession();
    this.#end("user");
  }

  /** Go on with this one. */
  async changeMicrophone(deviceId) {
    const change = ++this.#changes;
    const opened = await this.#microphones.open(deviceId);
    if (this.state === "ended" || change !== this.#changes) return stop(opened);
    const before = this.microphone;
    const [track] = opened.getAudioTracks();
    track.enabled = before?.getAudioTracks()[0].enabled ?? true;
    this.#use(opened);
    stop(before);
    await this.#pc?.getSenders()[0].replaceTrack(track);
  }

  #use(opened) {
    this.microphone = opened;
    this.#tell("microphone", opened);
  }

  /** The server has no such session any more. */
  lose() {
    this.#end("bot");
  }

  mute(muted) {
    for (const track of this.microphone?.getTracks() ?? []) track.enabled = !muted;
    this.send({ type: "signalling", message: { type: "trackStatus", receiver_index: MICROPHONE, enabled: !muted } });
  }

  /** Whether it could be sent. */
  send(message) {
    if (this.#channel?.readyState !== "open") return false;
    this.#channel.send(typeof message === "string" ? message : JSON.stringify(message));
    return true;
  }

  /** What getStats() says of the way to the bot: seconds, or undefined where it does not say yet. */
  async figures() {
    const figures = {};
    for (const entry of (await this.#pc?.getStats())?.values() ?? []) {
      if (entry.type === "candidate-pair" && entry.nominated) figures.roundTrip = entry.currentRoundTripTime;
      if (entry.type === "inbound-rtp") {
        figures.jitter = entry.jitter;
        figures.lost = entry.packetsLost;
        figures.received = entry.packetsReceived;
      }
    }
    return figures;
  }

  get ice() {
    return this.#pc?.iceConnectionState ?? "closed";
  }

  #to(state) {
    if (this.state === "ended") throw new Over();
    this.state = state;
    this.#tell("change");
  }

  #tell(event, detail) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }

  #open(iceServers) {
    try {
      this.#pc = new RTCPeerConnection({ iceServers });
    } catch (error) {
      throw iceServersUnusable(error);
    }
    const pc = this.#pc;
    pc.addTransceiver(this.microphone.getAudioTracks()[0], { direction: "sendrecv", streams: [this.microphone] });
    pc.addEventListener("track", ({ track }) => this.#tell("sound", new MediaStream([track])));
    pc.addEventListener("connectionstatechange", () => this.#onConnection(pc.connectionState));
    pc.addEventListener("iceconnectionstatechange", () => this.#tell("change"));
    pc.addEventListener("icecandidate", ({ candidate }) => this.#onCandidate(candidate));
    this.#channel = pc.createDataChannel("chat", { ordered: true });
    this.#channel.addEventListener("open", () => this.#onOpen());
    this.#channel.addEventListener("message", ({ data }) => this.#onMessage(data));
    // Whatever the bot's end closed it with: only a lost network keeps it open.
    this.#channel.addEventListener("close", () => this.#end("bot"));
    this.#after(CONNECT_TIMEOUT, () => {
      if (this.state === "connecting") this.#end("trouble", iceFailed(this.#gathered));
    });
  }

  async #negotiate() {
    const pc = this.#pc;
    await pc.setLocalDescription(await pc.createOffer());
    const { sdp, type } = pc.localDescription;
    const answer = await this.#server.offer(this.sessionId, { sdp, type, pc_id: this.#pcId, restart_pc: false });
    if (this.state === "ended") throw new Over();
    this.#pcId = answer.pc_id;
    await pc.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    this.#trickle();
  }

  #onCandidate(candidate) {
    if (candidate?.candidate) this.#gathered += 1;
    if (!candidate) return; // the end, which came as an empty candidate before
    const { candidate: line, sdpMid, sdpMLineIndex } = candidate;
    this.#candidates.push({ candidate: line, sdp_mid: sdpMid, sdp_mline_index: sdpMLineIndex });
    // The first one of a batch waits for those that follow at once.
    if (this.#pcId && this.#candidates.length === 1) this.#after(TRICKLE, () => this.#trickle());
  }

  #trickle() {
    if (this.state === "ended" || this.#candidates.length === 0) return;
    const candidates = this.#candidates.splice(0);
    // One that is refused does not matter while another one connects; when none does, that is said.
    this.#server.trickle(this.sessionId, { pc_id: this.#pcId, candidates }).catch(() => {});
  }

  #onConnection(state) {
    if (this.state === "ended") return;
    if (state === "connected") {
      this.connectedAt ||= performance.now();
      this.#to("connected");
    } else if (state === "disconnected" && this.connectedAt) {
      this.#to("interrupted");
    } else if (state === "failed") {
      this.#end("trouble", this.connectedAt ? networkLost() : iceFailed(this.#gathered));
    } else if (state === "closed") {
      this.#end("bot");
    }
  }

  #onOpen() {
    this.#tell("open");
    const ping = () => this.send(`ping: ${Date.now()}`);
    ping();
    const timer = setInterval(ping, PING);
    this.#timers.add(() => clearInterval(timer));
  }

  #onMessage(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return; // none of pipecat's
    }
    if (message?.type !== "signalling") this.#tell("message", message);
    else if (message.message?.type === "peerLeft") this.#end("bot");
    else if (message.message?.type === "renegotiate") this.#negotiate().catch((error) => this.#end("trouble", error));
  }

  #after(milliseconds, act) {
    const timer = setTimeout(act, milliseconds);
    this.#timers.add(() => clearTimeout(timer));
  }

  #end(by, error = null) {
    const first = this.state !== "ended";
    if (first) {
      this.state = "ended";
      this.endedBy = by;
    }
    // Also when it had ended while something was being opened.
    this.#release();
    if (first) this.#tell("end", error);
  }

  #release() {
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
    stop(this.microphone);
    this.microphone = null;
    this.#channel?.close();
    this.#pc?.close();
    // A bot that was connected sees that its client has left, as in any call; one that was not would wait for it.
    if (!this.connectedAt) this.#stopSession();
  }

  #stopSession() {
    if (!this.sessionId || this.#toldToStop) return;
    this.#toldToStop = true;
    this.#server.stop(this.sessionId).catch(() => {}); // it may have ended, or never begun
  }
}

function stop(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
