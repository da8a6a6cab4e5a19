import type { AnyModel } from "@anywidget/types";
import { watchKernel } from "./pulse/kernel.ts";
import type { Host } from "./pulse/kernel.ts";
import { h } from "./shared/dom.ts";
import { lifetime, onChange } from "./shared/model.ts";
import type { Props } from "./shared/model.ts";

interface Traits {
  state: string;
  beat: number;
  heard: number;
}

const PATIENCE_MS = 300;
const QUIET_MS = 1000;
/** A run that stands still has no news but what a click brings. */
const STILL_MS = 5000;
const KERNEL = "waiting for the kernel: another cell is running";
const BATCH = "waiting for the batch under way";
const STANDS = "What it had computed still stands here, but no click is answered: to go on, run the notebook's cells again.";
const GONE = `The kernel is gone. ${STANDS}`;
const RUN_GONE = `The kernel is gone, and the run with it. ${STANDS}`;

/** What sends something to the kernel when it is clicked or changed. */
const INPUTS = ".jupyter-button, select, input, .cka-stage, [role='treeitem']";

/** A click by the mouse (a key's has no detail) at the spot of the last, within a second. */
const isSecond = (last: MouseEvent, e: MouseEvent): boolean =>
  e.detail > 0 &&
  e.timeStamp - last.timeStamp < 1000 &&
  Math.hypot(e.clientX - last.clientX, e.clientY - last.clientY) < 8;

/** Says why a pressed button has not acted yet and what the run does, and asks for news where none come by themselves. */
export function render({ model, el, signal: host }: Props<Traits> & { model: Pick<AnyModel<Traits>, "send"> }): () => void {
  const { signal, end } = lifetime(host);
  const line = h("div", { class: "cka-waiting", role: "status" });
  const spoken = h("div", { class: "cka-live-text", role: "status" });
  el.append(line, spoken);
  const working = () => ["running", "paused"].includes(model.get("state"));
  let gone = false;

  // A screen reader hears what changes inside an element that stays; ipywidgets makes new ones.
  const speak = () => {
    spoken.textContent = el.closest(".cka-explorer")?.querySelector(".cka-said")?.textContent ?? "";
  };
  onChange(model, ["state"], speak, signal);

  /**
   * How many clicks that steer the run the kernel had heard of when the latest was made; null where none waits.
   * Other clicks are not counted: a question goes after them, and its answer says that they were heard.
   */
  let before: number | null = null;
  let patience: ReturnType<typeof setTimeout> | undefined;
  const explain = () => {
    if (before !== null) line.textContent = model.get("heard") > before ? BATCH : KERNEL;
  };
  const steered = (e: Event) => {
    const target = e.target instanceof Element ? e.target.closest(INPUTS) : null;
    if (gone || !target || target.closest(".cka-explorer") !== el.closest(".cka-explorer")) return;
    const steers = target.matches(".cka-steer");
    before = steers ? model.get("heard") : Infinity;
    if (!steers) setTimeout(ask);
    idle = 0;
    listen();
    clearTimeout(patience);
    patience = setTimeout(explain, PATIENCE_MS);
  };
  const answered = () => {
    if (gone) return;
    before = null;
    clearTimeout(patience);
    line.textContent = "";
  };
  let last: { button: Element; event: MouseEvent } | null = null;
  /** The second half of a double click belongs to the button that was there, not to the one that took its place. */
  const clicked = (e: MouseEvent) => {
    const button = e.target instanceof Element ? e.target.closest(".cka-explorer .jupyter-button") : null;
    if (button && last && button !== last.button && isSecond(last.event, e)) {
      e.preventDefault();
      e.stopImmediatePropagation();
      return;
    }
    last = button && { button, event: e };
    steered(e);
  };
  document.addEventListener("click", clicked, { signal, capture: true });
  document.addEventListener("change", steered, { signal, capture: true });
  onChange(model, ["state"], answered, signal);
  onChange(model, ["heard"], () => line.textContent && explain(), signal);

  // Some hosts (Colab) show nothing that a thread sends, but what answers a message.
  let quiet: ReturnType<typeof setTimeout> | undefined;
  let asked = false;
  /** Questions since the last news. */
  let idle = 0;
  const ask = () => {
    if (!signal.aborted) model.send({ beat: model.get("beat") });
  };
  const listen = () => {
    clearTimeout(quiet);
    if (gone || !working()) return;
    quiet = setTimeout(() => {
      if (!asked) ask();
      asked = true;
      idle++;
      listen();
    }, idle && model.get("state") === "paused" ? STILL_MS : QUIET_MS);
  };
  const heard = () => {
    if (before === Infinity) answered();
    asked = false;
    listen();
  };
  const news = () => {
    idle = 0;
    heard();
  };
  model.on("msg:custom", heard);
  onChange(model, ["beat", "state"], news, signal);
  listen();

  const over = () => {
    answered();
    gone = true;
    clearTimeout(quiet);
    line.classList.add("cka-gone");
    line.textContent = working() ? RUN_GONE : GONE;
  };
  watchKernel(model as unknown as Host, el, () => gone || over(), signal);

  signal.addEventListener("abort", () => {
    clearTimeout(patience);
    clearTimeout(quiet);
    model.off("msg:custom", heard);
    line.remove();
    spoken.remove();
  });
  return end;
}

export default { render };
