// Moving the map: pointers, the wheel and the keyboard.
//
// The wheel, and one finger that moves up or down, scroll the page until the map has the focus (`touch-action` in
// app.css does the latter).

const STILL_PIXELS = 5; // a pointer that moves no farther has tapped
const PAN_SHARE = 0.2; // of the map, per arrow key
const STEP = 2; // zoom factor of buttons and keys
const WHEEL_PIXELS = 250; // that zoom by STEP
const LINE_PIXELS = 25;

/**
 * Moves a view by events of a canvas.
 *
 * Calls `moved` after each move, `hovered` and `tapped` with a pixel (of Enter, the centre) and whether a finger
 * touched it, and `refused` when the wheel scrolls the page. While `drags` returns true, drags do not move the map, but
 * call `dragged` and `dropped` with the pixels where they began and are. While `draws` does, double clicks do not zoom.
 */
export function listen(canvas, view, { moved, hovered, tapped, draws, drags, dragged, dropped, refused }) {
  const pointers = new Map(); // id → pixel
  let start = null; // pixel where a single pointer went down
  let held = null; // the place that stays below the pointers, and their distance
  const pixelOf = ({ clientX, clientY }) => {
    const { left, top } = canvas.getBoundingClientRect();
    return [clientX - left - canvas.clientLeft, clientY - top - canvas.clientTop];
  };
  const gesture = () => {
    const pixels = [...pointers.values()].slice(0, 2);
    const [[ax, ay], [bx, by]] = [pixels[0], pixels.at(-1)];
    return { middle: [(ax + bx) / 2, (ay + by) / 2], distance: Math.hypot(ax - bx, ay - by) };
  };
  const hold = () => {
    if (!pointers.size) return;
    const { middle, distance } = gesture();
    held = { place: view.toPlace(middle), distance };
  };
  const isFar = ([x, y]) => start && Math.hypot(x - start[0], y - start[1]) > STILL_PIXELS;

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (event.pointerType === "mouse") canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, pixelOf(event));
    start = pointers.size === 1 ? pixelOf(event) : null;
    hold();
  });
  canvas.addEventListener("pointermove", (event) => {
    const pixel = pixelOf(event);
    if (!pointers.has(event.pointerId)) return hovered(pixel);
    pointers.set(event.pointerId, pixel);
    if (pointers.size === 1 && drags()) return isFar(pixel) && dragged(start, pixel);
    if (pointers.size === 1 && start && !isFar(pixel)) return null;
    start = null;
    const { middle, distance } = gesture();
    if (held.distance) view.zoom(distance / held.distance);
    held.distance = distance;
    view.hold(held.place, middle);
    return moved();
  });
  const lift = (event, cancelled) => {
    if (!pointers.delete(event.pointerId)) return;
    const pixel = pixelOf(event);
    if (start && !cancelled && isFar(pixel) && drags()) dropped(start, pixel);
    else if (start && !cancelled && !isFar(pixel)) {
      canvas.focus({ preventScroll: true });
      tapped(pixel, event.pointerType === "touch");
    }
    start = null;
    hold();
  };
  canvas.addEventListener("pointerup", (event) => lift(event, false));
  canvas.addEventListener("pointercancel", (event) => lift(event, true));
  canvas.addEventListener("dblclick", (event) => {
    if (draws()) return;
    view.zoom(STEP, pixelOf(event));
    moved();
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return refused();
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? LINE_PIXELS : 1) * (event.ctrlKey ? 4 : 1);
    view.zoom(STEP ** (-pixels / WHEEL_PIXELS), pixelOf(event));
    return moved();
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const x = { ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0;
    const y = { ArrowUp: -1, ArrowDown: 1 }[event.key] ?? 0;
    if (x || y) view.pan(x * PAN_SHARE * view.width, y * PAN_SHARE * view.height);
    else if ("+=".includes(event.key)) view.zoom(STEP);
    else if ("-_".includes(event.key)) view.zoom(1 / STEP);
    else if (event.key !== "Enter") return;
    event.preventDefault();
    if (event.key === "Enter") tapped([view.width / 2, view.height / 2], false);
    else moved();
  });
  return { zoomBy: (steps) => { view.zoom(STEP ** steps); moved(); } };
}
