// A page as a user's own: pipecat's JavaScript client, as it is published.

import { PipecatClient } from "@pipecat-ai/client-js";
import { SmallWebRTCTransport } from "@pipecat-ai/small-webrtc-transport";
import { WebSocketTransport } from "@pipecat-ai/websocket-transport";

const TRANSPORTS = {
  webrtc: () => new SmallWebRTCTransport(),
  websocket: () => new WebSocketTransport(),
};

window.events = [];

window.begin = async ({ endpoint, transport, key, body }) => {
  const note = (name) => (data) => window.events.push({ name, data });
  window.client = new PipecatClient({
    transport: TRANSPORTS[transport](),
    enableMic: true,
    enableCam: false,
    callbacks: {
      onBotReady: note("bot-ready"),
      onUserTranscript: note("user-transcript"),
      onDisconnected: () => note("disconnected")(null),
      onError: note("error"),
      onTrackStarted: (track, participant) => {
        if (participant?.local || track.kind !== "audio") return;
        const sound = document.body.appendChild(document.createElement("audio"));
        sound.autoplay = true;
        sound.srcObject = new MediaStream([track]);
      },
    },
  });
  const headers = new Headers(key ? { Authorization: `Bearer ${key}` } : {});
  const asked = { endpoint, headers, requestData: { transport, body } };
  if (transport === "webrtc") return window.client.startBotAndConnect(asked);
  // websocket-transport 1.7.1 takes no sessionId, which pipecat's runner answers too; so its users do this.
  const { wsUrl, token } = await window.client.startBot(asked);
  return window.client.connect(token ? { wsUrl, token } : { wsUrl });
};
