import { decimals, fixed } from "../heatmap/format.ts";

/** As in "± 0.021"; "± < 0.0001" below what is worth printing, "" without an error bar. */
export function plusMinus(error: number): string {
  if (!Number.isFinite(error)) return "";
  return error < 5e-5 ? "± < 0.0001" : `± ${error.toFixed(decimals(error))}`;
}

/** A score with as many decimals as its error bar deserves. */
export function score(value: number, error = NaN): string {
  return Number.isFinite(value) ? fixed(value, decimals(error)) : "undefined";
}

/** 1 layer, 2 layers. */
export const plural = (n: number, noun: string): string => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

export const count = (n: number): string => n.toLocaleString("en-US");

/** 0.2 s, 12 s, 3 min 20 s, 2 h 5 min. */
export function duration(seconds: number): string {
  if (seconds < 9.95) return `${Math.max(seconds, 0.1).toFixed(1)} s`;
  if (seconds < 59.5) return `${seconds.toFixed(0)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return minutes < 10 && whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Cuts the middle out of a long name; start and end tell names apart best. */
export function clip(name: string, limit = 18): string {
  const signs = [...name];
  if (signs.length <= limit) return name;
  const tail = Math.floor((limit - 1) / 2);
  return `${signs.slice(0, limit - 1 - tail).join("")}…${signs.slice(-tail).join("")}`;
}

/** Names without the first and last words that all share: "wide CNN", "deep CNN" are "wide", "deep". */
export function distinct(names: readonly string[]): string[] {
  let words = names.map((name) => name.split(/\s+/).filter(Boolean));
  if (names.length < 2 || words.some((w) => !w.length)) return [...names];
  for (const [pick, drop] of [[0, 1], [-1, 0]] as const) {
    while (words.every((w) => w.length > 1) && new Set(words.map((w) => w.at(pick))).size === 1) {
      words = words.map((w) => (drop ? w.slice(1) : w.slice(0, -1)));
    }
  }
  return words.map((w) => w.join(" "));
}
