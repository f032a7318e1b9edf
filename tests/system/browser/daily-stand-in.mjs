// What the clients' default media manager uses of @daily-co/daily-js, which would load the rest of itself from the
// internet: the microphone, through getUserMedia.

import { EventEmitter } from "events";

let only = null;

export default class Daily extends EventEmitter {
  static getCallInstance() {
    return only ?? undefined;
  }

  static createCallObject() {
    return (only ??= new Daily());
  }

  static supportedBrowser() {
    return { supported: true, supportsScreenShare: false };
  }

  #local = { local: true, user_id: "local", user_name: "local", tracks: {} };

  async startCamera() {
    await this.#open();
    return { camera: {}, mic: { deviceId: "default", kind: "audioinput", label: "stand-in" }, speaker: {} };
  }

  async #open() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const [track] = stream.getAudioTracks();
    this.#local.tracks = { audio: { track, persistentTrack: track, state: "playable" } };
    this.emit("track-started", { action: "track-started", track, participant: this.#local, type: "audio" });
  }

  async leave() {
    this.#local.tracks.audio?.track.stop();
    this.#local.tracks = {};
  }

  participants() {
    return { local: this.#local };
  }

  async enumerateDevices() {
    return { devices: await navigator.mediaDevices.enumerateDevices() };
  }

  async setInputDevicesAsync() {
    return { camera: {}, mic: {}, speaker: {} };
  }

  async setOutputDeviceAsync() {
    return { speaker: {} };
  }

  isLocalAudioLevelObserverRunning() {
    return true;
  }

  setLocalAudio(enabled) {
    if (this.#local.tracks.audio) this.#local.tracks.audio.track.enabled = enabled;
  }

  localAudio() {
    return this.#local.tracks.audio?.track.enabled ?? false;
  }

  setLocalVideo() {}

  localVideo() {
    return false;
  }

  localScreenAudio() {
    return false;
  }

  localScreenVideo() {
    return false;
  }
}
