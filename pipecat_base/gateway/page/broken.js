// While no bot can be served: show the next problem, or the bot, once there is one.

const LOOK = 1_000;

const known = ({ problem, mistake }) => JSON.stringify([problem, mistake]);
const shown = known(JSON.parse(document.querySelector("[data-problem]").dataset.problem));

/** Whether there is something else to show by now; not while the server does not answer. */
async function isOver() {
  const answer = await fetch("status", { cache: "no-store" }).catch(() => null);
  if (answer?.status !== 503) return answer !== null;
  return known(await answer.json()) !== shown;
}

setInterval(() => isOver().then((over) => over && location.reload()), LOOK);
