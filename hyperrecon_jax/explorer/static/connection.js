// @ts-check
"use strict";

// The connection to the server: what is said while it is away, and how the page goes on when it is back.
const Connection = (app, { start, update }) => {
  const RETRY = 2000; // milliseconds
  let isRetrying = false;

  /** Tells the user of an error, or waits for a server that does not answer. */
  function report(error) {
    if (error instanceof Source.ConnectionLost) wait();
    else Messages.error(error);
  }

  function wait() {
    document.body.dataset.connection = "down";
    const command = app.run ? app.run.command : "hyperrecon explore --run RUN";
    Messages.banner(`The server does not answer. Start it again with  ${command}  and the options that it had, and this page goes on.`);
    app.requests.pause();
    if (!isRetrying) retry();
  }

  async function retry() {
    isRetrying = true;
    while (document.body.dataset.connection === "down") {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
      try {
        goOn(await app.source.run());
      } catch (error) {
        if (!(error instanceof Source.ConnectionLost)) Messages.error(error);
      }
    }
    isRetrying = false;
  }

  function goOn(run) {
    document.body.dataset.connection = "up";
    Messages.banner(null);
    if (!app.run) start(run);
    // another run answers, or this one was trained further: nothing that is in memory holds
    else if (run.folder !== app.run.folder || run.steps !== app.run.steps) location.reload();
    else update(run);
  }

  return { report };
};
