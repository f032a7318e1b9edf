// RTVI: the messages that we send, and what of the bot's belongs into the transcript.

const LABEL = "rtvi-ai";
const VERSION = "2.2.0"; // older bots answer in their own, which is understood too

const message = (type, data) => ({ label: LABEL, type, id: crypto.randomUUID(), data });

export const clientReady = () =>
  message("client-ready", { version: VERSION, about: { library: "pipecat-base", platform: "web" } });

export const textMessage = (content) =>
  message("send-text", { content, options: { run_immediately: true, audio_response: true } });

export const isRtvi = (received) => received?.label === LABEL;

/**
 * Lines of the transcript, of one call. A line is `{key, who, text, rest, note, open}`: `rest` is what the bot has yet
 * to say of it, `open` that it may still change. The same key again replaces it.
 */
export class Conversation {
  #count = 0;
  #utterance = 0;
  #ours = new Set();
  #userInput = false; // the bot sends user-input, which holds all that user-transcription does
  #botOutput = true; // the bot sends bot-output, which holds all that the older ones do
  #hasLlm = false;
  #unspoken = null;

  /** A text that we send. */
  typed({ id, data }) {
    this.#ours.add(id);
    return this.#line("user", data.content, { note: "typed" });
  }

  /** The line that a message adds or changes, or null. */
  read({ type, data = {} }) {
    switch (type) {
      case "bot-ready":
        this.#botOutput = !/^(0|1\.0)\./.test(data.version ?? "");
        return null;
      case "user-input":
        this.#userInput = true;
        return this.#ours.has(data.msg_id) ? null : this.#said(data);
      case "user-transcription":
        return this.#userInput ? null : this.#said(data);
      case "bot-output":
        this.#botOutput = true;
        return data.segment_id === undefined || data.spoken_status === undefined ? this.#output(data) : this.#segment(data);
      case "bot-llm-started":
        this.#hasLlm = true;
        return null;
      case "bot-transcription":
        return this.#botOutput ? null : this.#line("bot", data.text);
      case "bot-tts-text":
        return this.#botOutput || this.#hasLlm ? null : this.#line("bot", data.text);
      default:
        return null;
    }
  }

  #line(who, text, more = {}) {
    const key = more.key ?? `line-${++this.#count}`;
    return { who, rest: "", note: "", open: false, ...more, key, text: String(text ?? "") };
  }

  /** Interim ones share one line with the final one that follows. */
  #said({ text, final, input_type: kind }) {
    const key = `said-${this.#utterance}`;
    if (final === false) return this.#line("user", text, { key, open: true });
    this.#utterance += 1;
    return this.#line("user", text, { key, note: kind === "backchannel" ? "meanwhile" : "" });
  }

  /** Protocol 2: one segment, of which more and more has been spoken. */
  #segment({ text, segment_id: id, spoken_status: status, spoken_progress: progress }) {
    const key = `segment-${id}`;
    if (!progress || status === "completed") return this.#line("bot", text, { key });
    return this.#line("bot", progress.accumulated_text, { key, rest: progress.remaining_text, open: true });
  }

  /** Protocol 1: a sentence before it is spoken, then each of its words; or a sentence that was spoken. */
  #output({ text, spoken, output_type: kind, aggregated_by: older }) {
    if (["word", "token"].includes(kind ?? older)) return null;
    const key = spoken && this.#unspoken?.text === text ? this.#unspoken.key : undefined;
    const line = this.#line("bot", text, { key });
    this.#unspoken = spoken ? null : line;
    return line;
  }
}
