// @ts-check
"use strict";

// Images that were reconstructed before (`Cache`), and the order in which new ones are asked for (`Requests`).
const Store = (() => {
  const BYTES = 256 * 2 ** 20;

  const sliceKey = ({ volume, index, acquisition = "" }) => `${volume}|${index}|${acquisition}`;
  const lamKey = (lam) => lam.map((value) => value.toFixed(3)).join(",");

  /** Reconstructions by slice and λ; the ones longest not looked at go first. */
  class Cache {
    constructor(bytes = BYTES) {
      this.capacity = bytes;
      this.bytes = 0;
      this.entries = new Map(); // in the order of last use
      this.slices = new Map(); // slice -> its keys, to look for neighbours among them alone
    }

    key(place, lam) {
      return `${sliceKey(place)}|${lamKey(lam)}`;
    }

    has(place, lam) {
      return this.entries.has(this.key(place, lam));
    }

    get(place, lam) {
      return this.touch(this.key(place, lam));
    }

    touch(key) {
      const entry = this.entries.get(key);
      if (!entry) return undefined;
      this.entries.delete(key);
      this.entries.set(key, entry);
      return entry;
    }

    put(entry) {
      const key = this.key(entry, entry.lam);
      this.drop(key);
      this.entries.set(key, entry);
      this.bytes += entry.plane.byteLength;
      const slice = sliceKey(entry);
      if (!this.slices.has(slice)) this.slices.set(slice, new Set());
      this.slices.get(slice).add(key);
      while (this.bytes > this.capacity && this.entries.size > 1) this.drop(this.entries.keys().next().value);
    }

    drop(key) {
      const entry = this.entries.get(key);
      if (!entry) return;
      this.entries.delete(key);
      this.bytes -= entry.plane.byteLength;
      const keys = this.slices.get(sliceKey(entry));
      keys.delete(key);
      if (!keys.size) this.slices.delete(sliceKey(entry));
    }

    nearest(place, lam) {
      let [nearest, least] = [null, Infinity];
      for (const key of this.slices.get(sliceKey(place)) || []) {
        const away = Source.distance(this.entries.get(key).lam, lam);
        if (away < least) [nearest, least] = [key, away];
      }
      return nearest ? this.touch(nearest) : undefined;
    }

    clear() {
      this.entries.clear();
      this.slices.clear();
      this.bytes = 0;
    }
  }

  /**
   * One request at a time. What the user waits for comes first, by slot and only the newest; then thumbnails; then a
   * coarse set of λ that makes the slider follow the hand. A new wish ends a request that only fills the cache.
   */
  class Requests {
    constructor(source, cache, { onReconstructed, onProgress, onFailed }) {
      this.source = source;
      this.cache = cache;
      this.onReconstructed = onReconstructed;
      this.onProgress = onProgress; // of what the user waits for
      this.onFailed = onFailed;
      this.wishes = new Map(); // slot -> { place, lam, since }
      this.queue = []; // { place, lam }: thumbnails, then the coarse set
      this.slice = null; // the one that the queue is of
      this.running = null;
      this.paused = false;
    }

    want(slot, place, lam, since) {
      this.wishes.set(slot, { slot, place, lam, since });
      const { running } = this;
      // An answer for another λ of this slice is worth having, as a neighbour; one for another slice is not.
      if (running && (!running.slot || sliceKey(running.place) !== sliceKey(place))) running.abort.abort();
      this.next();
    }

    /** The slot has its image: what it still waits for is out of date. */
    settle(slot) {
      this.wishes.delete(slot);
    }

    /** Queues λ of one slice, in place of what was queued. */
    fill(place, lams) {
      this.slice = sliceKey(place);
      this.queue = lams.map((lam) => ({ place, lam }));
      this.next();
    }

    /** Queues λ of the slice before its others. */
    fillFirst(place, lams) {
      const rest = this.slice === sliceKey(place) ? this.queue : [];
      this.fill(place, lams);
      this.queue.push(...rest);
    }

    pause() {
      this.paused = true;
    }

    resume() {
      this.paused = false;
      this.next();
    }

    take() {
      const wish = this.wishes.values().next().value;
      if (wish) {
        this.wishes.delete(wish.slot);
        return wish;
      }
      while (this.queue.length && this.cache.has(this.queue[0].place, this.queue[0].lam)) this.queue.shift();
      return this.queue.shift();
    }

    async next() {
      if (this.running || this.paused) return;
      const job = this.take();
      if (!job) return;
      const abort = new AbortController();
      this.running = { ...job, abort };
      try {
        const entry = await this.source.reconstruct(job.place, job.lam, abort.signal, job.slot ? this.onProgress : null);
        this.cache.put(entry);
        this.onReconstructed(entry, job);
      } catch (error) {
        this.fail(error, job);
      } finally {
        this.running = null;
        this.next();
      }
    }

    fail(error, job) {
      const isLost = error instanceof Source.ConnectionLost;
      if (isLost || Source.isAbort(error)) this.requeue(job, isLost);
      else if (!job.slot) this.queue = []; // the others of the set would most likely fail the same way
      if (!Source.isAbort(error) && (isLost || job.slot)) this.onFailed(error, job);
    }

    requeue(job, isLost) {
      if (isLost) this.pause();
      if (!job.slot && sliceKey(job.place) === this.slice) this.queue.unshift(job);
      if (job.slot && isLost && !this.wishes.has(job.slot)) this.wishes.set(job.slot, job);
    }
  }

  /** At most one question under way, and of those that wait only the newest. */
  class Newest {
    constructor(run) {
      this.run = run;
      this.waiting = null;
      this.busy = false;
    }

    async ask(question) {
      this.waiting = question;
      if (this.busy) return;
      this.busy = true;
      while (this.waiting) {
        const current = this.waiting;
        this.waiting = null;
        await this.run(current);
      }
      this.busy = false;
    }
  }

  /** λ vectors on a regular grid, each as far as can be from those before it, the first far from `lam`. */
  function coarse(axes, lam) {
    const points = { 1: 21, 2: 7 }[axes] || 3;
    let rest = [[]];
    for (let axis = 0; axis < axes; axis++) {
      rest = rest.flatMap((start) => Array.from({ length: points }, (_, i) => [...start, i / (points - 1)]));
    }
    const gaps = rest.map((entry) => Source.distance(entry, lam));
    const order = [];
    while (order.length < rest.length) {
      const furthest = gaps.indexOf(Math.max(...gaps));
      order.push(rest[furthest]);
      rest.forEach((entry, i) => {
        gaps[i] = Math.min(gaps[i], Source.distance(entry, rest[furthest]) || -1);
      });
    }
    return order;
  }

  return { Cache, Newest, Requests, coarse, lamKey, sliceKey };
})();
