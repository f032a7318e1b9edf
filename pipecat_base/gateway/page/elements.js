// The page's elements. Data only ever becomes text.

export const byId = (id) => document.getElementById(id);

/** `make("p", "detail", "text")`: an element with a class and text or children. */
export function make(tag, className = "", ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

/** Only when it differs: a live region is read again when it is set. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** "7 s", "1 min 20 s", "2 h 5 min". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** The time of day. */
export const clock = (options) =>
  new Date().toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", ...options });

/** Keeps a list that scrolls at its end, unless its reader has scrolled up. */
export function atEnd(list, change) {
  const follows = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  change();
  if (follows) list.scrollTop = list.scrollHeight;
}
