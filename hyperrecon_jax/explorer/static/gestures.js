// @ts-check
"use strict";

// What pointers do on an image: pan, window and level, zoom, the line of the profile; and the wheel, which steps slices.
const Gestures = (() => {
  const ZOOM = [1, 40];
  /** @type {(value: number, limits: number[]) => number} */
  const clamp = (value, [low, high]) => Math.min(high, Math.max(low, value));
  const toUnit = (value) => clamp(value, [0, 1]);
  const STEP = 50; // pixels of the wheel for one slice: a notch of a mouse is more, a trackpad sends many small ones

  const ACTIONS = {
    pan(view, start, event) {
      const [du, dv] = view.travel(event.clientX - start.x, event.clientY - start.y, start.state);
      return { pan: [toUnit(start.state.pan[0] - du), toUnit(start.state.pan[1] - dv)] };
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
      return { profile: [start.at.map(toUnit), end.map(toUnit)] };
    },
  };

  const selectTool = (event, state) => {
    if (event.button === 2) return "window";
    return event.button === 1 ? "pan" : state.tool;
  };

  const limitZoom = (zoom) => clamp(zoom, ZOOM);

  /** The zoom, and the pan with which the point `at` of the image lies at a place (clientX, clientY) of the screen. */
  function zoomAt(view, place, at, zoom) {
    const limited = limitZoom(zoom);
    const beside = view.locate(place, { zoom: limited, pan: [0.5, 0.5] });
    return { zoom: limited, pan: at.map((value, axis) => toUnit(0.5 + value - beside[axis])) };
  }

  /** About the cursor: the point under it stays where it is. */
  function zoomed(view, event, state) {
    const factor = Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015));
    return zoomAt(view, event, view.locate(event, state), state.zoom * factor);
  }

  /** What two fingers hold: the middle between them, and how far they are apart. */
  function grip(fingers) {
    const [first, second] = [...fingers.values()];
    const middle = { clientX: (first.clientX + second.clientX) / 2, clientY: (first.clientY + second.clientY) / 2 };
    return { middle, apart: Math.hypot(first.clientX - second.clientX, first.clientY - second.clientY) };
  }

  /** One pointer does what the tool says; two zoom and move the image. */
  function dragging(view, { state, change, hover }) {
    const { canvas } = view;
    const pointers = new Map(); // those that are down, by id, where each is
    let drag = null;
    let pinch = null;

    function begin(event, action) {
      const { pan, zoom, window, level } = state;
      const at = view.locate(event, state);
      drag = { x: event.clientX, y: event.clientY, at, action, state: { pan, zoom, window, level } };
    }

    function beginPinch() {
      drag = null;
      const { middle, apart } = grip(pointers);
      pinch = { at: view.locate(middle, state), apart: Math.max(apart, 1), zoom: state.zoom };
    }

    function move(event) {
      if (pinch) {
        const { middle, apart } = grip(pointers);
        change(zoomAt(view, middle, pinch.at, (pinch.zoom * apart) / pinch.apart));
        return;
      }
      if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 2) drag.moving = true;
      if (drag.moving) change(ACTIONS[drag.action](view, drag, event, state));
    }

    canvas.addEventListener("pointerdown", (event) => {
      if (!view.picture || pointers.size > 1) return;
      event.preventDefault(); // the middle button would start to scroll
      if (document.activeElement instanceof HTMLElement) document.activeElement.blur(); // the keys are the page's
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, event);
      if (pointers.size === 2) beginPinch();
      else begin(event, selectTool(event, state));
    });
    canvas.addEventListener("pointermove", (event) => {
      hover(view, view.locate(event, state));
      if (!pointers.has(event.pointerId)) return;
      pointers.set(event.pointerId, event);
      if (pinch || drag) move(event);
    });
    const end = (event) => {
      if (!pointers.delete(event.pointerId)) return;
      drag = null;
      if (!pinch) return;
      pinch = null;
      for (const pointer of pointers.values()) begin(pointer, "pan"); // the finger that stays moves the image
    };
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, end);
    canvas.addEventListener("pointerleave", () => hover(view, null));
  }

  /** The wheel steps slices; with Ctrl, which is also what pinching a trackpad sends, it zooms. */
  function wheel(view, { state, change, moveSlice }) {
    let turned = 0;
    const turn = (event) => {
      if (!view.picture) return;
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) {
        change(zoomed(view, event, state));
        return;
      }
      const pixels = -event.deltaY * (event.deltaMode ? STEP : 1); // up: to the next slice, as the arrow up
      if (pixels * turned < 0) turned = 0;
      turned += pixels;
      if (Math.abs(turned) < STEP) return;
      moveSlice(Math.sign(turned));
      turned = 0;
    };
    view.canvas.addEventListener("wheel", turn, { passive: false });
  }

  /** `actions` are { state, change, hover, moveSlice, reset }. */
  function attach(view, actions) {
    view.canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    view.canvas.addEventListener("dblclick", actions.reset);
    dragging(view, actions);
    wheel(view, actions);
  }

  return { attach, limitZoom };
})();
