// An edit breaks the bot while the page is open, and the next one fixes it.

import { writeFileSync } from "node:fs";

import { looks, play } from "./browser.mjs";

await play(async ({ page, given }) => {
  const pill = page.locator("#server");
  const problem = page.locator("#problem");
  await pill.filter({ hasText: /^Ready$/ }).waitFor();
  const pills = [];
  await page.exposeFunction("note", (text) => pills.push(text));
  await page.evaluate(() => new MutationObserver(() => window.note(document.querySelector("#server").textContent)).observe(
    document.querySelector("#server"), { childList: true, characterData: true, subtree: true }));
  writeFileSync(given.file, given.broken);
  await problem.waitFor();
  const told = await problem.innerText();
  const look = await looks(page, given, "edit");
  writeFileSync(given.file, given.mended);
  await problem.waitFor({ state: "hidden" });
  await pill.filter({ hasText: /^Ready$/ }).waitFor();
  return { told, look, pills, boxes: await page.locator(".notice:visible").count() };
});
