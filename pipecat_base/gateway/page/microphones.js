// Which microphone is used, and the list to choose it from.

import { make } from "./elements.js";
import { noMicrophone } from "./words.js";

const CHOSEN = "pipecat-base.microphone";

/** Their names are known once one was allowed; a single one needs no list. */
export class Microphones {
  #field;
  #select;
  #chosen = localStorage.getItem(CHOSEN) ?? "";
  #used = "";

  /** `onChange` is called with the device's id when the user has chosen one. */
  constructor(field, select, onChange) {
    this.#field = field;
    this.#select = select;
    select.addEventListener("change", () => onChange(select.value));
    navigator.mediaDevices?.addEventListener("devicechange", () => this.#list());
    this.#list();
  }

  /** For the next call. */
  choose(deviceId) {
    this.#chosen = this.#used = deviceId;
    if (deviceId) localStorage.setItem(CHOSEN, deviceId);
    this.#list();
  }

  /** The stream of this one, or of the system's own choice where it is gone. Throws a Trouble, and nothing is chosen. */
  async open(deviceId = this.#chosen) {
    const before = this.#chosen;
    if (deviceId !== before) this.choose(deviceId);
    try {
      const stream = await ask(deviceId);
      this.#used = stream.getAudioTracks()[0].getSettings().deviceId;
      this.#list();
      return stream;
    } catch (error) {
      if (this.#chosen === deviceId) this.choose(before);
      throw noMicrophone(error);
    }
  }

  async #list() {
    const devices = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    const named = devices.filter(({ kind, label }) => kind === "audioinput" && label);
    this.#field.hidden = named.length < 2;
    const options = named.map(({ deviceId, label }) => {
      const option = make("option", "", label);
      option.value = deviceId;
      option.selected = deviceId === (this.#used || this.#chosen);
      return option;
    });
    this.#select.replaceChildren(...options);
  }
}

async function ask(deviceId) {
  if (deviceId) {
    try {
      return await navigator.mediaDevices.getUserMedia({ audio: { deviceId: { exact: deviceId } } });
    } catch (error) {
      if (error.name !== "OverconstrainedError") throw error; // else it is not plugged in
    }
  }
  return await navigator.mediaDevices.getUserMedia({ audio: true });
}
