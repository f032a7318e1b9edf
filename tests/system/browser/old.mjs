// A session goes on with old code after an edit, and is stopped from the list.

import { writeFileSync } from "node:fs";

import { looks, play } from "./browser.mjs";

await play(async ({ page, given }) => {
  await page.locator("#sessions li").waitFor();
  const before = await page.locator("#sessions-card").innerText();
  writeFileSync(given.file, given.changed);
  const note = page.locator("#sessions-old");
  await note.waitFor();
  const during = await page.locator("#sessions-card").innerText();
  const look = await looks(page, given, "old");
  await page.getByRole("button", { name: /^Stop session/ }).click();
  await note.waitFor({ state: "hidden" });
  return { before, during, look };
});
