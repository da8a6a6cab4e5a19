import type { Model } from "../shared/model.ts";
import type { Module } from "./tree.ts";

/** The synced traits of the Python class, by name. */
export interface Traits {
  nodes: Module[];
  checked: string[];
  title: string;
  color: string;
  particles: number;
  disabled: boolean;
  note: string;
  theme: string;
  max_height: number;
}

export type PickerModel = Model<Traits>;
