/** What hosts of ipywidgets give beside the model's own methods; marimo and others do not. */
export interface Host {
  on(event: "comm_live_update", then: () => void): void;
  off(event: "comm_live_update", then: () => void): void;
  widget_manager?: unknown;
}

interface Source {
  connect?(slot: (sender: unknown, news: unknown) => void): unknown;
  disconnect?(slot: (sender: unknown, news: unknown) => void): unknown;
}
interface Session {
  statusChanged?: Source;
  kernelChanged?: Source;
}

const ENDED = ["restarting", "autorestarting", "terminating", "dead"];
const CUT_OFF = ".jupyter-widgets-disconnected";

/**
 * Calls `then` when the kernel that made the widget is gone, at once where it is gone already.
 *
 * ipywidgets marks the views of models without a connection: those of a saved state, and all after a restart by
 * hand. Of a kernel that died or was shut down it says nothing; there JupyterLab's session does.
 */
export function watchKernel(model: Host, el: Element, then: () => void, signal: AbortSignal): void {
  const look = () => {
    if (!signal.aborted && el.closest(CUT_OFF)) then();
  };
  // A task later all views have their mark; old versions of anywidget mark those around theirs alone.
  const later = () => void setTimeout(look);
  model.on("comm_live_update", later);
  signal.addEventListener("abort", () => model.off("comm_live_update", later));
  const manager = model.widget_manager as { context?: { sessionContext?: Session }; kernel?: Session } | undefined;
  const session = manager?.context?.sessionContext ?? manager?.kernel;
  const listen = (source: Source | undefined, slot: (sender: unknown, news: unknown) => void) => {
    source?.connect?.(slot);
    signal.addEventListener("abort", () => source?.disconnect?.(slot));
  };
  listen(session?.statusChanged, (_, status) => {
    if (ENDED.includes(String(status))) then();
  });
  listen(session?.kernelChanged, (_, change) => {
    if ((change as { oldValue?: unknown } | null)?.oldValue) then();
  });
  later();
}
