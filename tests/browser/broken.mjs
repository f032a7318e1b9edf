// Open a server whose bot is broken, and fix it.

import { writeFileSync } from "node:fs";

import { play } from "./browser.mjs";

await play(async ({ page, given }) => {
  const told = await page.locator("body").innerText();
  writeFileSync(given.file, given.mended);
  await page.getByRole("button", { name: "Connect" }).waitFor();
  return { told };
});
