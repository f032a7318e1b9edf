// How loud the microphone and the bot are.

const FLOOR = -60; // dB of full scale; the left end
const FALL = 0.9; // of the level before, each frame: peaks stay long enough to be seen
const SPOKEN = 500; // ms between changes of what screen readers are told

/** Draws a stream's level into an element with role "meter", whose first child is the bar. */
export class Meter {
  #element;
  #bar;
  #analyser = null;
  #source = null;
  #level = 0;
  #told = 0;

  constructor(element) {
    this.#element = element;
    this.#bar = element.firstElementChild;
  }

  watch(context, stream) {
    this.stop();
    this.#analyser = new AnalyserNode(context, { fftSize: 1024 });
    this.#source = context.createMediaStreamSource(stream);
    this.#source.connect(this.#analyser);
    const samples = new Float32Array(this.#analyser.fftSize);
    const draw = (now) => {
      if (!this.#analyser) return;
      this.#analyser.getFloatTimeDomainData(samples);
      this.#show(Math.max(loudness(samples), this.#level * FALL), now);
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
  }

  stop() {
    this.#source?.disconnect();
    this.#analyser = this.#source = null;
    this.#show(0, Infinity);
    this.#told = 0;
  }

  #show(level, now) {
    this.#level = level < 0.01 ? 0 : level;
    this.#bar.style.transform = `scaleX(${this.#level.toFixed(3)})`;
    if (now - this.#told < SPOKEN) return;
    this.#told = now;
    this.#element.setAttribute("aria-valuenow", Math.round(this.#level * 100));
  }
}

/** 0 (silence) to 1 (full scale), even to the ear. */
function loudness(samples) {
  const mean = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  return mean === 0 ? 0 : Math.min(1, Math.max(0, 1 - (10 * Math.log10(mean)) / FLOOR));
}
