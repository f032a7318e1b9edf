// Which microphone is used, and the list to choose it from.

import { make } from "./elements.js";
import { noMicrophone } from "./words.js";

const CHOSEN = "pipecat-base.microphone";

/** Their names are known once one was allowed; a single one needs no list. */
export class Microphones {
  #field;
  #select;

  /** `onChange` is called when another one was chosen. */
  constructor(field, select, onChange) {
    this.#field = field;
    this.#select = select;
    select.addEventListener("change", () => {
      localStorage.setItem(CHOSEN, select.value);
      onChange();
    });
    navigator.mediaDevices?.addEventListener("devicechange", () => this.#list());
    this.#list();
  }

  /** The chosen one's stream, or the system's own choice where that one is gone. Throws a Trouble. */
  async open() {
    try {
      const stream = await this.#ask(localStorage.getItem(CHOSEN));
      await this.#list(stream.getAudioTracks()[0].getSettings().deviceId);
      return stream;
    } catch (error) {
      throw noMicrophone(error);
    }
  }

  async #ask(chosen) {
    if (chosen) {
      try {
        return await navigator.mediaDevices.getUserMedia({ audio: { deviceId: { exact: chosen } } });
      } catch (error) {
        if (error.name !== "OverconstrainedError") throw error; // else it is not plugged in
      }
    }
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  }

  async #list(used = this.#select.value || localStorage.getItem(CHOSEN)) {
    const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    const named = devices.filter(({ kind, label }) => kind === "audioinput" && label);
    this.#field.hidden = named.length < 2;
    const options = named.map(({ deviceId, label }) => {
      const option = make("option", "", label);
      option.value = deviceId;
      option.selected = deviceId === used;
      return option;
    });
    this.#select.replaceChildren(...options);
  }
}
