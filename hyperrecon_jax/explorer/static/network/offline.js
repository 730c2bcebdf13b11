// @ts-check
"use strict";

// The source of a page that holds its network (explorer/offline_page.py): a worker computes all, in this browser. Nothing
// is sent anywhere: the page's own policy forbids every connection.
const Offline = (() => {
  const FORMATS = "PNG, JPEG, WebP and NumPy (.npy)";
  const DIVERSE_GAP = 0.5; // dB: a reconstruction is good if its PSNR is within this of the best
  const PART_GOOD = 0.1;
  const MAX_BYTES = 2 ** 29; // of files that are dropped together: more would fill the memory

  /** The worker, and its answers to questions. */
  class Helper {
    constructor(text) {
      this.waiting = new Map(); // id -> { resolve, reject }
      this.count = 0;
      this.worker = new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
      this.worker.onmessage = ({ data }) => this.receive(data);
      this.worker.onerror = (event) => this.fail(new Error(`The network of this page stopped: ${event.message}.`));
    }

    ask(name, args, signal = null) {
      const id = ++this.count;
      this.worker.postMessage({ id, name, args });
      const cancel = () => this.waiting.has(id) && this.worker.postMessage({ cancel: id });
      if (signal) signal.addEventListener("abort", cancel, { once: true });
      return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    }

    receive({ id, result, error, cancelled }) {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (cancelled) reject(new DOMException("no longer wanted", "AbortError"));
      else if (error) reject(new Error(error));
      else resolve(result);
    }

    fail(error) {
      for (const { reject } of this.waiting.values()) reject(error);
      this.waiting.clear();
    }
  }

  const isGood = (scores) => {
    const sorted = [...scores].sort((a, b) => b - a);
    const last = sorted[Math.max(1, Math.ceil(PART_GOOD * scores.length) - 1)];
    return (score) => score >= Math.min(last, sorted[0] - DIVERSE_GAP);
  };

  function squaredDistance(a, b) {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
    return sum;
  }

  /** Of some reconstructions those that differ most, at most `count`: the furthest pair, then always the furthest one. */
  function selectDiverse(entries, count) {
    if (entries.length <= 2) return entries;
    const pairs = entries.flatMap((second, i) => entries.slice(0, i).map((first) => [first, second]));
    const distances = pairs.map(([first, second]) => squaredDistance(first.plane, second.plane));
    const selected = [...pairs[distances.indexOf(Math.max(...distances))]];
    while (selected.length < Math.min(count, entries.length)) {
      const rest = entries.filter((entry) => !selected.includes(entry));
      const nearest = rest.map(({ plane }) => Math.min(...selected.map((entry) => squaredDistance(plane, entry.plane))));
      selected.push(rest[nearest.indexOf(Math.max(...nearest))]);
    }
    return selected;
  }

  class OfflineSource extends Source.AnyLambda {
    constructor() {
      super();
      this.live = false;
      const text = (id) => document.getElementById(id).textContent;
      this.page = JSON.parse(text("offline-page"));
      this.helper = new Helper(text("offline-worker"));
      const { settings, hypernetwork, tensors, task, images } = this.page;
      const blobs = { weights: text("offline-weights"), wasm: text("offline-wasm") };
      this.ready = this.helper.ask("open", { settings, hypernetwork, tensors, task, images, ...blobs });
      this.files = 0;
    }

    async run() {
      document.getElementById("drop-hint").textContent =
        "Computed in this browser: no picture leaves it. Drop a PNG, JPEG or .npy file anywhere";
      document.getElementById("file").labels[0].title = FORMATS;
      Messages.banner("The network starts in this browser …");
      await this.ready;
      return Object.assign(this.page.run, { max_upload_bytes: MAX_BYTES }); // the page adds its volumes to it
    }

    /** The place as the worker has it: the page holds some slices of the test images. */
    at({ volume, index, acquisition }) {
      return { volume, acquisition, position: volume === "test" ? this.page.images.indices.indexOf(index) : index };
    }

    async slice(place, signal) {
      return { ...place, ...(await this.helper.ask("measure", this.at(place), signal)) };
    }

    async reconstruct(place, lam, signal) {
      const answer = await this.helper.ask("reconstruct", { place: this.at(place), lam }, signal);
      Messages.banner(null);
      return { ...place, lam, ...answer };
    }

    /** Reconstructions of a slice at λ on a regular grid; `heard` gets how far it is, and `signal` ends it. */
    async scan(place, signal, onProgress) {
      const axes = this.page.run.lams.length;
      const lams = Store.coarse(axes, Array(axes).fill(0)).map((lam) => this.snap(lam));
      const entries = [];
      for (const lam of lams) {
        onProgress({ words: `${entries.length} of ${lams.length} settings of λ`, share: entries.length / lams.length });
        entries.push(await this.reconstruct(place, lam, signal));
      }
      return entries;
    }

    async best(place, metric, signal, onProgress) {
      const entries = await this.scan(place, signal, onProgress);
      const { higher_is_better: higher } = this.page.run.metric_facts[metric];
      const value = ({ metrics }) => (higher ? metrics[metric] : -metrics[metric]);
      const winner = entries.reduce((best, entry) => (value(entry) > value(best) ? entry : best));
      return { lam: winner.lam, value: winner.metrics[metric] };
    }

    async diverse(place, count, signal, onProgress) {
      const entries = await this.scan(place, signal, onProgress);
      const good = isGood(entries.map(({ metrics }) => metrics.psnr));
      const selected = selectDiverse(entries.filter(({ metrics }) => good(metrics.psnr)), count);
      const criterion =
        `PSNR among the best tenth, or within ${DIVERSE_GAP} dB of the best, of ${entries.length} lambdas; ` +
        `of these, the ${selected.length} that differ most.`;
      return { lams: selected.map(({ lam }) => lam), criterion };
    }

    /** The volumes of some files; of several, those that cannot be read are skipped, and the note of each volume says so. */
    async upload(files) {
      const [opened, skipped, faults] = [[], [], []];
      for (const file of files) {
        try {
          opened.push(await this.add(file));
        } catch (error) {
          skipped.push(file.name);
          faults.push(error);
        }
      }
      if (!opened.length) throw faults[0];
      const note = skipped.length ? ` Files skipped: ${skipped.join(", ")}. ${faults[0].message}` : "";
      return opened.map((volume) => ({ ...volume, note: volume.note + note }));
    }

    async add(file) {
      const [trained] = this.page.run.volumes;
      const { planes, notes, scale, area } = await ImageFiles.read(file, this.page.task.factor, FORMATS);
      const [{ h, w }] = planes;
      const differences = [];
      if (h !== trained.height || w !== trained.width) {
        differences.push(`The network was trained on ${trained.height} x ${trained.width} pixels, this is ${h} x ${w}.`);
      }
      const id = `file${++this.files}`;
      await this.helper.ask("add", { id, planes });
      const size = { slices: planes.length, height: h, width: w, aspect: 1, start: Math.floor(planes.length / 2) };
      const note = [...notes, ...differences].join(" ");
      return { ...trained, ...size, id, name: file.name, truth: true, note, acquisition: "", subjects: null, differences, scale, area };
    }

    async remove(id) {
      await this.helper.ask("remove", { id });
    }

    /** A file of the slice: { name, blob }. The test images are files of their own size and scale. */
    async export(place, [lam], { format, content }) {
      const { run } = this.page;
      const volume = run.volumes.find(({ id }) => id === place.volume);
      const { scale = [0, 1], area = { top: 0, left: 0, h: volume.height, w: volume.width } } = volume;
      const isResult = content === "result";
      const answer = isResult ? await this.reconstruct(place, lam) : await this.slice(place);
      const image = ResultFiles.crop(isResult ? answer.plane : answer[content], volume.width, area);
      const suffix = isResult ? `lambda_${lam.map(Number).join("_")}` : content;
      const stem = volume.name.split(".")[0].replace(/[^\p{L}\p{N}]+/gu, "_").replace(/^_|_$/g, "") || "volume";
      const name = `${stem}_${place.index}_${suffix}`;
      if (format === "npy") return { name: `${name}.npy`, blob: ResultFiles.toNumPy(image) };
      const metadata = {
        software: "hyperrecon_jax", version: run.version, notice: run.notice, date: new Date().toISOString(),
        run: run.name, task: run.task, acquisition: place.acquisition || run.task, content,
        ...(isResult ? { lambda: lam.join(", ") } : {}), volume: volume.name, slice: String(place.index),
      };
      const description = `hyperrecon_jax, slice ${place.index} of ${volume.slices}`;
      return { name: `${name}.nii`, blob: ResultFiles.toNifti(image, scale, description, metadata) };
    }

    indices(volume) {
      return volume.id === "test" ? this.page.images.indices : super.indices(volume);
    }
  }

  return { OfflineSource };
})();
