/** The parts of a host's model that tell how its kernel is; hosts without them tell nothing. */
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
    if (el.closest(CUT_OFF)) then();
  };
  model.on("comm_live_update", look);
  signal.addEventListener("abort", () => model.off("comm_live_update", look));
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
  look();
}
