// What every scenario needs: a Chromium whose microphone plays a file, and JSON in (stdin) and out (stdout).

import { text } from "node:stream/consumers";

import { chromium } from "playwright-core";

const FLAGS = [
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--autoplay-policy=no-user-gesture-required",
  "--disable-features=WebRtcHideLocalIpsWithMdns",
];
const PATIENCE = 20_000; // ms until a step that does not come about is given up

/**
 * Run a scenario with a page that has opened `given.url`, and print what it returns with `requests` (every address that
 * was asked) and `complaints` (what browsers print in red). `given.microphone` is a WAV file, "denied" or "none".
 */
export async function play(scenario) {
  const given = JSON.parse(await text(process.stdin));
  const browser = await chromium.launch({
    executablePath: given.chromium,
    headless: false, // it is, by its flag: playwright's own way to say so is another Chromium
    ignoreDefaultArgs: ["--headless", "--mute-audio"],
    args: [...FLAGS, ...microphone(given.microphone), ...(given.flags ?? [])],
  });
  const seen = { requests: [], complaints: [] };
  let page;
  try {
    page = await open(browser, given, seen);
    const result = await scenario({ page, given, seen });
    process.stdout.write(JSON.stringify({ ...result, ...seen }));
  } catch (error) {
    const shown = await page?.locator("body").innerText({ timeout: 1_000 }).catch(() => "");
    process.stdout.write(JSON.stringify({ failed: error.stack, shown, ...seen }));
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

function microphone(kind) {
  if (kind === "none") return [];
  if (kind === "denied") return ["--use-fake-ui-for-media-stream=deny", "--use-fake-device-for-media-stream"];
  return ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", `--use-file-for-fake-audio-capture=${kind}`];
}

async function open(browser, given, seen) {
  const context = await browser.newContext({
    viewport: given.phone ? { width: 360, height: 740 } : { width: given.width ?? 1200, height: given.height ?? 800 },
    isMobile: given.phone ?? false,
    hasTouch: given.phone ?? false,
    colorScheme: given.scheme ?? "light",
    reducedMotion: "reduce",
  });
  context.on("request", (request) => seen.requests.push(`${request.method()} ${request.url()}`));
  context.on("weberror", (error) => seen.complaints.push(String(error.error())));
  context.on("console", (line) => line.type() === "error" && seen.complaints.push(`${line.text()} ${line.location().url}`));
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  for (const script of given.before ?? []) await page.addInitScript({ content: script });
  if (given.url) await page.goto(given.url);
  return page;
}

/**
 * The dominant frequency of what the page plays, once that is loud enough to tell: through an element, or through an
 * AudioContext when `SPEAKER` ran before.
 */
export function pitch(page) {
  return page.evaluate(async () => {
    const deadline = performance.now() + 20_000;
    let analyser, loudest;
    while (performance.now() < deadline) {
      analyser ??= window.speaker ?? ofElement();
      await new Promise((resolve) => setTimeout(resolve, 50));
      if (!analyser) continue;
      const levels = new Float32Array(analyser.frequencyBinCount);
      analyser.getFloatFrequencyData(levels);
      loudest = Math.max(...levels);
      if (loudest > -50) return (levels.indexOf(loudest) * analyser.context.sampleRate) / analyser.fftSize;
    }
    throw new Error(analyser ? `nothing loud was heard, at most ${loudest} dB` : "nothing plays sound");

    function ofElement() {
      const elements = [...document.querySelectorAll("audio, video")];
      const stream = elements.map((element) => element.srcObject).find((stream) => stream?.getAudioTracks().length);
      if (!stream) return undefined;
      const context = new AudioContext();
      const analyser = new AnalyserNode(context, { fftSize: 32768, smoothingTimeConstant: 0 });
      context.createMediaStreamSource(stream).connect(analyser);
      return analyser;
    }
  });
}

/** Listens to what an AudioContext sends to the speakers. */
export const SPEAKER = `
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (destination, ...rest) {
    if (destination instanceof AudioDestinationNode) {
      window.speaker ??= new AnalyserNode(this.context, { fftSize: 16384, smoothingTimeConstant: 0 });
      if (window.speaker.context === this.context) connect.call(this, window.speaker);
    }
    return connect.call(this, destination, ...rest);
  };
`;

/** What a state of the page looks like: how much wider it is than its window, and the least contrast of a text in it. */
export async function looks(page, given, name) {
  if (given.pictures) await page.screenshot({ path: `${given.pictures}-${name}.png` });
  return page.evaluate(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
      return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = (color) => {
      const [r, g, b] = rgba(color).map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
      const color = element ? getComputedStyle(element).backgroundColor : "white";
      return !element || rgba(color)[3] === 255 ? color : ground(element.parentElement);
    };
    const contrast = (element) => {
      const [high, low] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
      return (high + 0.05) / (low + 0.05);
    };
    const speaks = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const texts = [...document.querySelectorAll("body *")].filter(
      (e) => speaks(e) && e.checkVisibility() && !e.closest(":disabled, .unseen, script, style"),
    );
    const faintest = texts.map((e) => [contrast(e), e.textContent.slice(0, 40)]).sort(([a], [b]) => a - b)[0];
    const { scrollWidth, clientWidth } = document.documentElement;
    return { overflow: Math.max(0, scrollWidth - clientWidth), faintest };
  });
}

/** The sessions that the gateway lists. */
export async function sessions(url, headers = {}) {
  const response = await fetch(new URL("/sessions", url), { headers });
  return (await response.json()).sessions;
}

export const connected = (page) => page.getByRole("status").filter({ hasText: /^Connected$/ }).waitFor();

/** Poll until the condition, which may be asynchronous, gives something true. */
export async function until(condition, what) {
  const deadline = Date.now() + PATIENCE;
  while (Date.now() < deadline) {
    const value = await condition();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not within ${PATIENCE} ms: ${what}`);
}
