import type { AnyModel } from "@anywidget/types";

/** What the widgets ask of a model: the kernel's proxy in a notebook, a small object in an exported page. */
export type Model<T extends object> = Pick<AnyModel<T>, "get" | "set" | "on" | "off" | "save_changes">;

/** What a render function is called with; hosts older than anywidget 0.10 pass no signal. */
export interface Props<T extends object> {
  model: Model<T>;
  el: HTMLElement;
  signal?: AbortSignal;
}

/** Calls `then` after a change of any of the traits, until the signal aborts. */
export function onChange<T extends object>(
  model: Model<T>,
  traits: readonly (keyof T & string)[],
  then: (trait: keyof T & string) => void,
  signal: AbortSignal,
): void {
  for (const trait of traits) {
    const listener = () => then(trait);
    model.on(`change:${trait}`, listener);
    signal.addEventListener("abort", () => model.off(`change:${trait}`, listener), { once: true });
  }
}

/** Ties a view to its host: the returned signal ends with the host's own or with `end`, whichever comes first. */
export function lifetime(host: AbortSignal | undefined): { signal: AbortSignal; end: () => void } {
  const own = new AbortController();
  if (host?.aborted) own.abort();
  host?.addEventListener("abort", () => own.abort(), { once: true, signal: own.signal });
  return { signal: own.signal, end: () => own.abort() };
}

/** Little-endian float32 numbers of a buffer, whatever view the host hands over. */
export function floats(data: DataView | ArrayBufferView | ArrayBuffer | null | undefined): Float32Array {
  if (!data) return new Float32Array(0);
  const [buffer, offset, length] = ArrayBuffer.isView(data)
    ? [data.buffer as ArrayBuffer, data.byteOffset, data.byteLength]
    : [data, 0, data.byteLength];
  const count = length >> 2;
  // A Float32Array must start at a multiple of four bytes; a view into a message need not.
  return offset % 4 === 0
    ? new Float32Array(buffer, offset, count)
    : new Float32Array(buffer.slice(offset, offset + count * 4));
}

/** Runs `task` once in the next animation frame, however often it is asked. */
export function perFrame(task: () => void, signal: AbortSignal): () => void {
  let asked = 0;
  signal.addEventListener("abort", () => cancelAnimationFrame(asked), { once: true });
  return () => {
    if (asked || signal.aborted) return;
    asked = requestAnimationFrame(() => {
      asked = 0;
      task();
    });
  };
}

/** Runs `task` at once, then at most every `ms`; the last asked-for run always happens. */
export function throttled(task: () => void, ms: number, signal: AbortSignal): { (): void; flush(): void } {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let waiting = false;
  const tick = () => {
    timer = undefined;
    if (waiting) run();
  };
  const run = () => {
    waiting = false;
    timer = setTimeout(tick, ms);
    task();
  };
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  const ask = () => {
    if (signal.aborted) return;
    if (timer === undefined) run();
    else waiting = true;
  };
  return Object.assign(ask, {
    flush() {
      if (waiting) {
        clearTimeout(timer);
        run();
      }
    },
  });
}
