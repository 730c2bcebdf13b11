// @ts-check
"use strict";

// The address of the page: it is kept up to date, and what a link says is taken over.
const Address = (app, modes) => {
  const SAVE = 300; // milliseconds between two changes of the address; browsers limit them
  const { state } = app;
  const links = new Store.Newest(open);
  let saving = null;

  function save() {
    if (saving || !app.run) return;
    saving = setTimeout(() => {
      saving = null;
      Link.save(state);
    }, SAVE);
  }

  async function copyLink() {
    if (window.top !== window) {
      Messages.toast("In the frame of a notebook the page has no link that opens elsewhere. Save the picture: Export, As seen.");
      return;
    }
    Link.save(state);
    const link = Token.without(location.href);
    try {
      await navigator.clipboard.writeText(link);
      Messages.toast(`The link to this view is copied. ${reach()}`);
    } catch {
      Messages.toast(`This browser does not let the page copy; the link is ${link} ${reach()}`);
    }
  }

  /** For whom a link of this page opens, in words. */
  function reach() {
    if (location.protocol === "file:") return "It opens on this machine; a colleague needs this file, too.";
    if (!app.source.live) return "";
    const isLoopback = /^(localhost|127\.[\d.]+|\[::1\])$/.test(location.hostname);
    const who = isLoopback ? "It opens in this browser alone." : "It opens in browsers that have opened the address with the token.";
    return `${who} For others, save the picture: Export, As seen.`;
  }

  function read(hash) {
    const { acquisitions, evaluation, lams } = app.run;
    const metrics = evaluation ? Object.keys(evaluation.values) : [];
    return Link.read(hash, { axes: lams.length, modes, metrics, acquisitions });
  }

  /** Takes over what a link says, and fetches its volume where that is not open in this tab. */
  async function open({ hash }) {
    const view = read(hash);
    const { volume: id } = view;
    if (id && !app.volume(id)) {
      if (!state.volume) app.showVolume(app.run.volumes[0]);
      clearTimeout(saving); // the address must not become that of the view before
      saving = null;
      if (app.source.live && !(await Volumes.fetchLinked(app, id))) return;
      if (!app.volume(id)) app.sayUnknown(app.volume(state.volume));
    }
    show(view);
  }

  /**
   * Shows a view; without a window of its own, or of another volume, it gets the automatic one.
   * @param {any} view
   */
  function show({ volume: id, index, A, B, ...rest }) {
    const { source } = app;
    Object.assign(state, { profile: null }, rest);
    state.needsWindow = !("window" in rest && "level" in rest) || Boolean(id && !app.volume(id));
    if (A) state.lam.A = source.snap(A);
    if (B) state.lam.B = source.snap(B);
    const volume = app.volume(id) || app.volume(state.volume) || app.run.volumes[0];
    const indices = source.indices(volume);
    const middle = indices[Math.floor(indices.length / 2)];
    const choices = [index, volume.start, middle];
    app.showPlace({ volume: volume.id, index: choices.find((choice) => indices.includes(choice)) });
  }

  /** Opens a link that was pasted: the one of the event, since the address may have been saved anew before it arrives. */
  const follow = ({ newURL }) => links.ask({ hash: new URL(newURL).hash });

  return { copyLink, follow, restore: () => links.ask({ hash: location.hash }), save };
};
