// The page's modules that need no browser: lines of a transcript, words for refusals.

import { text } from "node:stream/consumers";

import { Conversation } from "../../../pipecat_base/gateway/page/rtvi.js";
import { refused } from "../../../pipecat_base/gateway/page/words.js";

const given = JSON.parse(await text(process.stdin));

function transcript(messages) {
  const conversation = new Conversation();
  const lines = new Map();
  for (const message of messages) {
    const line = message.type === "send-text" ? conversation.typed(message) : conversation.read(message);
    if (line) lines.set(line.key, [line.who, [line.text, line.rest].filter(Boolean).join(" | "), line.open]);
  }
  return [...lines.values()];
}

process.stdout.write(
  JSON.stringify({
    transcripts: (given.transcripts ?? []).map(transcript),
    words: (given.refusals ?? []).map(([status, body]) => refused(status, body)).map(({ title, help, detail }) => ({ title, help, detail })),
  }),
);
