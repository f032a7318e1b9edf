// The server goes away while the page is open, and comes back with a bot that is broken, which is fixed.

import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";

import { looks, play } from "./browser.mjs";

await play(async ({ page, given }) => {
  const pill = (text) => page.locator("#server").filter({ hasText: text }).waitFor();
  await pill("Ready");
  process.kill(given.pid, "SIGTERM");
  await pill("Unreachable");
  await page.getByRole("button", { name: "Connect" }).click();
  await page.locator("#trouble").waitFor();
  writeFileSync(given.file, given.broken);
  const [program, ...options] = given.command;
  const server = spawn(program, options, { cwd: given.folder, env: given.environment, stdio: "ignore" });
  try {
    await pill("Waiting for a change");
    const told = await page.locator(".notice:visible").allInnerTexts();
    const look = await looks(page, given, "restart");
    writeFileSync(given.file, given.mended);
    await pill("Ready");
    await page.locator("#problem").waitFor({ state: "hidden" });
    return { told, look, boxes: await page.locator(".notice:visible").count() };
  } finally {
    server.kill();
  }
});
