// pipecat's prebuilt client: press its button, hear the bot.

import { build } from "esbuild";

import { pitch, play, sessions, until } from "./browser.mjs";

/** The stand-in as one file, under the name that the prebuilt client's own bundle exports. */
async function standIn(original) {
  const [, name] = original.match(/export\s*\{\s*[\w$]+ as ([\w$]+)\s*\}/);
  const contents = `export { default as ${name} } from "./daily-stand-in.mjs";`;
  const resolveDir = new URL(".", import.meta.url).pathname;
  const { outputFiles } = await build({ stdin: { contents, resolveDir }, bundle: true, write: false, format: "esm" });
  return outputFiles[0].text;
}

await play(async ({ page, given }) => {
  await page.route("**/assets/daily-esm-*.js", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: await standIn(await response.text()) });
  });
  await page.goto(`${given.gateway}/client/`);
  // Its button does nothing before.
  await page.getByText('"initialized"').waitFor();
  await page.getByRole("button", { name: /^connect$/i }).click();
  const heard = await pitch(page);
  const during = await until(async () => {
    const listed = await sessions(given.gateway);
    return listed.length > 0 && listed;
  }, "a session");
  await page.getByRole("button", { name: /^disconnect$/i }).click();
  await until(async () => (await sessions(given.gateway)).length === 0, "no session left");
  return { heard, during };
});
