// A notice: what happened, what to do, and the lines of the bot's code where it did.

import { make } from "./elements.js";

/** Fill `element` with a trouble, or hide it for null. The same one again changes nothing: a live region is read again. */
export function showNotice(element, trouble) {
  const content = trouble && JSON.stringify([trouble.title, trouble.help, trouble.frames, trouble.detail]);
  if (element.dataset.content === (content ?? "") && element.hidden === (trouble === null)) return;
  element.dataset.content = content ?? "";
  element.hidden = trouble === null;
  element.classList.toggle("calm", trouble?.calm ?? false);
  element.replaceChildren();
  if (trouble === null) return;
  element.append(make("strong", "", trouble.title));
  if (trouble.help) element.append(make("p", "", trouble.help));
  if (trouble.frames.length > 0) element.append(make("ol", "frames", ...trouble.frames.map(frame)));
  if (trouble.detail) element.append(make("p", "detail", trouble.detail));
}

/** `helpers.py:3 in connect: import redis`: where, and the line itself. */
function frame(line) {
  const [, where, code] = /^(\S.*?:\d+(?: in [^:]+)?)(?:: (.*))?$/s.exec(line) ?? [null, line, ""];
  const item = make("li", "", make("span", "where", where));
  if (code) item.append(make("code", "", code));
  return item;
}
