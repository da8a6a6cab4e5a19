/** Every eighth colour of 256, as hex; linear steps between them stay within 5 of 255 of the full tables. */
const ANCHORS = {
  magma:
    "0000040303120a0822130d341d114729115a36106b440f7651127c5d177f6a1c81762181832681902a819c2e7faa337db73779" +
    "c43c75d0416fdc4869e75263ef5d5ef56b5cf9795dfc8961fd9869fea772feb67cfec488fed395fde2a3fcf0b2fcfdbf",
  cividis:
    "00224e00285b002e6a0533711a386f273e6e32436d3b496c434e6c4b546c535a6d5a5f6e61656f686a716f70737676767d7c78" +
    "8482798c8878938e789b9476a39a74aba072b4a76fbcae6cc4b468cdbb63d5c25edec958e7d150f0d846f9e03afee838",
  viridis:
    "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e21918c" +
    "1f988b1fa08822a78528ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725",
} as const;

export type MapName = keyof typeof ANCHORS;
export type Rgb = readonly [number, number, number];

/** The 256 colours of a map as 768 bytes; an unknown name gives magma. */
export function table(name: string): Uint8Array {
  const hex = ANCHORS[name in ANCHORS ? (name as MapName) : "magma"];
  const last = hex.length / 6 - 1;
  const anchor = (i: number, k: number) => parseInt(hex.slice(i * 6 + k * 2, i * 6 + k * 2 + 2), 16);
  const out = new Uint8Array(768);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * last;
    const lo = Math.min(Math.floor(at), last - 1);
    for (let k = 0; k < 3; k++) {
      out[i * 3 + k] = Math.round(anchor(lo, k) + (at - lo) * (anchor(lo + 1, k) - anchor(lo, k)));
    }
  }
  return out;
}

/** Index 0 to 255 of a value in a range; values outside take the end colours. */
export function index(value: number, vmin: number, vmax: number): number {
  const t = vmax > vmin ? (value - vmin) / (vmax - vmin) : 0.5;
  return Math.max(0, Math.min(255, Math.round(t * 255)));
}

export function rgb(colours: Uint8Array, i: number): Rgb {
  return [colours[i * 3], colours[i * 3 + 1], colours[i * 3 + 2]];
}

export function mix(from: Rgb, to: Rgb, t: number): Rgb {
  return [0, 1, 2].map((k) => Math.round(from[k] + (to[k] - from[k]) * t)) as unknown as Rgb;
}

export function css([r, g, b]: Rgb): string {
  return `rgb(${r},${g},${b})`;
}

/** Black or white, whichever reads better on the colour (WCAG relative luminance). */
export function ink(colour: Rgb): string {
  const [r, g, b] = colour.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}

/** The three channels of `#rrggbb`, `#rgb`, `rgb(...)` or `rgba(...)`; grey where it is none of these. */
export function parse(text: string): Rgb {
  const s = text.trim();
  if (s.startsWith("#")) {
    const full = s.length < 7 ? [...s.slice(1, 4)].map((c) => c + c).join("") : s.slice(1, 7);
    const n = [0, 2, 4].map((i) => parseInt(full.slice(i, i + 2), 16));
    if (n.every((v) => v >= 0)) return n as unknown as Rgb;
  }
  const parts = s.match(/[\d.]+/g)?.map(Number);
  return s.startsWith("rgb") && parts && parts.length >= 3 ? [parts[0], parts[1], parts[2]] : [128, 128, 128];
}
