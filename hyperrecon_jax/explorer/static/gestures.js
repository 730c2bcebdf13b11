"use strict";

// What a pointer does on an image: pan, window and level, zoom, and the line of the profile.
const Gestures = (() => {
  const ZOOM = [1, 40];
  const clamp = (value, [low, high]) => Math.min(high, Math.max(low, value));
  const inside = (value) => clamp(value, [0, 1]);

  const ACTIONS = {
    pan(view, start, event) {
      const [du, dv] = view.travel(event.clientX - start.x, event.clientY - start.y, start.state);
      return { pan: [inside(start.state.pan[0] - du), inside(start.state.pan[1] - dv)] };
    },
    // Right makes the window wider, up makes the image darker, as at a scanner's console; 300 pixels are a full window.
    window(view, start, event) {
      const unit = Math.max(start.state.window, 0.05) / 300;
      return {
        window: Math.max(0.005, start.state.window + (event.clientX - start.x) * unit),
        level: start.state.level + (start.y - event.clientY) * unit,
      };
    },
    profile(view, start, event, state) {
      const end = view.locate(event, state);
      return { profile: [start.at.map(inside), end.map(inside)] };
    },
  };

  const chosen = (event, state) => {
    if (event.button === 2) return "window";
    return event.button === 1 ? "pan" : state.tool;
  };

  /** About the cursor: the point under it stays where it is. */
  function zoomed(view, event, state) {
    const at = view.locate(event, state);
    const zoom = clamp(state.zoom * Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ZOOM);
    const keep = state.zoom / zoom;
    return { zoom, pan: at.map((value, axis) => inside(value + (state.pan[axis] - value) * keep)) };
  }

  function attach(view, { state, change, reset, hover }) {
    const { canvas } = view;
    let drag = null;
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", reset);
    canvas.addEventListener("pointerdown", (event) => {
      if (!view.picture || drag) return;
      event.preventDefault(); // the middle button would start to scroll
      canvas.setPointerCapture(event.pointerId);
      const { pan, zoom, window, level } = state;
      const at = view.locate(event, state);
      const before = { pan, zoom, window, level };
      drag = { x: event.clientX, y: event.clientY, at, action: chosen(event, state), state: before };
    });
    canvas.addEventListener("pointermove", (event) => {
      hover(view, view.locate(event, state));
      const moved = drag && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 2;
      if (moved) drag.moving = true;
      if (drag && drag.moving) change(ACTIONS[drag.action](view, drag, event, state));
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drag = null));
    canvas.addEventListener("pointerleave", () => hover(view, null));
    canvas.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (view.picture) change(zoomed(view, event, state));
      },
      { passive: false },
    );
  }

  return { attach };
})();
