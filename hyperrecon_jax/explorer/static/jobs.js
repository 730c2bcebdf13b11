"use strict";

// Long work of the server: how far it is, and an end to it when the answer is not wanted any more.
const Jobs = (() => {
  const POLL = 500; // milliseconds
  const page = Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(36)).join("");
  let count = 0;

  /** A name that no other job has, of this page or another. */
  const name = () => `${page}-${(count += 1)}`;

  /**
   * What `work` returns. While it takes long, `heard` gets what `progress` tells of the job, { words, share }. When `signal`
   * ends it, `drop` tells the server, because a proxy may keep a connection that the browser has closed.
   */
  async function follow(work, { signal, onProgress, progress, drop }) {
    let [isLong, isOver] = [false, false];
    const timer = setInterval(async () => {
      isLong = true;
      const report = onProgress && (await progress().catch(() => null));
      if (report && report.words && !isOver) onProgress(report);
    }, POLL);
    const end = () => isLong && drop().catch(() => {});
    if (signal) signal.addEventListener("abort", end);
    try {
      return await work();
    } finally {
      isOver = true;
      clearInterval(timer);
      if (signal) signal.removeEventListener("abort", end);
      if (onProgress && isLong) onProgress(null);
    }
  }

  return { follow, name };
})();
