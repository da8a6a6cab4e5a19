import type { Model } from "../shared/model.ts";

/** A model without a kernel: the same methods, the values kept in the page. */
export function localModel<T extends object>(initial: T): Model<T> & { assign(values: Partial<T>): void } {
  const state = { ...initial };
  const listeners = new Map<string, Set<() => void>>();
  const set = <K extends keyof T & string>(name: K, value: T[K]) => {
    if (state[name] === value) return;
    state[name] = value;
    for (const listener of [...(listeners.get(`change:${name}`) ?? [])]) listener();
  };
  const model = {
    get: <K extends keyof T & string>(name: K) => state[name],
    set,
    on(event: string, listener: () => void) {
      listeners.set(event, (listeners.get(event) ?? new Set()).add(listener));
    },
    off: (event: string, listener: () => void) => listeners.get(event)?.delete(listener),
    save_changes() {},
    assign(values: Partial<T>) {
      for (const [name, value] of Object.entries(values)) set(name as keyof T & string, value as never);
    },
  };
  return model as unknown as Model<T> & { assign(values: Partial<T>): void };
}
