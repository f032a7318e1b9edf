// Open a server whose bot is broken, and fix it.

import { writeFileSync } from "node:fs";

import { looks, play } from "./browser.mjs";

await play(async ({ page, given }) => {
  const told = await page.locator("main").innerText();
  const look = await looks(page, given, "broken");
  if (given.worse) {
    writeFileSync(given.file, given.worse);
    await page.getByRole("alert").filter({ hasText: given.worsened }).waitFor();
  }
  writeFileSync(given.file, given.mended);
  await page.getByRole("button", { name: "Connect" }).waitFor();
  return { told, look };
});
