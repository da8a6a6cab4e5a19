import type { AnyModel } from "@anywidget/types";
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
const KERNEL = "waiting for the kernel: another cell is running";
const BATCH = "waiting for the batch under way";

/** Says why a pressed button has not acted yet, and asks for news where none come by themselves. */
export function render({ model, el, signal: host }: Props<Traits> & { model: Pick<AnyModel<Traits>, "send"> }): () => void {
  const { signal, end } = lifetime(host);
  const line = h("div", { class: "cka-waiting", role: "status" });
  el.append(line);

  /** How many clicks the kernel had heard of when the latest was made; null where none waits. */
  let before: number | null = null;
  let patience: ReturnType<typeof setTimeout> | undefined;
  const explain = () => {
    if (before !== null) line.textContent = model.get("heard") > before ? BATCH : KERNEL;
  };
  const clicked = (e: Event) => {
    const button = e.target instanceof Element ? e.target.closest(".cka-steer") : null;
    if (!button || button.closest(".cka-explorer") !== el.closest(".cka-explorer")) return;
    before = model.get("heard");
    clearTimeout(patience);
    patience = setTimeout(explain, PATIENCE_MS);
  };
  const answered = () => {
    before = null;
    clearTimeout(patience);
    line.textContent = "";
  };
  document.addEventListener("click", clicked, { signal, capture: true });
  onChange(model, ["state"], answered, signal);
  onChange(model, ["heard"], () => line.textContent && explain(), signal);

  // Some hosts (Colab) show nothing that a thread sends, but what answers a message.
  let quiet: ReturnType<typeof setTimeout> | undefined;
  let asked = false;
  const listen = () => {
    clearTimeout(quiet);
    if (!["running", "paused"].includes(model.get("state"))) return;
    quiet = setTimeout(() => {
      if (!asked) model.send({ beat: model.get("beat") });
      asked = true;
      listen();
    }, QUIET_MS);
  };
  const news = () => {
    asked = false;
    listen();
  };
  model.on("msg:custom", news);
  onChange(model, ["beat", "state"], news, signal);
  listen();

  signal.addEventListener("abort", () => {
    clearTimeout(patience);
    clearTimeout(quiet);
    model.off("msg:custom", news);
    line.remove();
  });
  return end;
}

export default { render };
