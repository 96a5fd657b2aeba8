// Lines, areas and histograms with axes. Times of one chart lie on a fixed window up to now.

import { make, seconds, svg } from "./dom.js";
import uPlot from "./vendor/uplot.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const HEIGHT = 190;

/**
 * A chart over time. `series` are {label, colour} in the order of the values of `show`; `stacked`
 * piles them up. `top()` is the fixed upper end of the scale, or null to fit. `write` words a value.
 */
export function timeChart(label, series, { stacked = false, top = () => null, write = String, windowS }) {
  const box = make("div", { class: "plot", role: "img", "aria-label": label });
  const legend = make(
    "ul",
    "legend",
    series.map((each) => make("li", "", swatch(each.colour), each.label, " ", (each.now = make("b", "", "–")))),
  );
  const figure = make("figure", "", make("figcaption", "", label), box, legend);
  let plot = null;
  let data = [[0], ...series.map(() => [0])];

  function build() {
    plot?.destroy();
    const grid = { stroke: colour("--line"), width: 1 };
    const axis = { stroke: colour("--soft"), grid, ticks: grid, font: "12px system-ui, sans-serif" };
    const scale = (_, low, high) => [0, top() ?? Math.max(1, high * 1.1)];
    plot = new uPlot(
      {
        width: Math.max(200, box.clientWidth),
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false, range: () => [-windowS, 0] }, y: { range: scale } },
        axes: [
          {
            ...axis,
            values: (_, all) => all.map((v) => (v === 0 ? "now" : `−${-v / 60} min`)),
            incrs: [60, 300, 600],
            space: 50,
          },
          { ...axis, values: (_, all) => all.map(write), size: 58 },
        ],
        series: [
          {},
          ...[...series].reverse().map((each) => ({
            stroke: colour(each.colour),
            fill: stacked ? colour(each.colour) : undefined,
            width: 1.5,
            points: { show: false },
          })),
        ],
      },
      drawn(),
      box,
    );
  }

  /** What uPlot is given: stacked areas are painted from the whole down to the lowest. */
  function drawn() {
    const [times, ...values] = data;
    const piled = values.map((each, i) =>
      stacked ? each.map((_, k) => values.slice(0, i + 1).reduce((sum, column) => sum + column[k], 0)) : each,
    );
    return [times, ...piled.reverse()];
  }

  const observer = new ResizeObserver(
    () => plot && box.clientWidth > 0 && plot.setSize({ width: box.clientWidth, height: HEIGHT }),
  );
  observer.observe(box);
  document.addEventListener("themed", build);
  return {
    figure,
    /** Shows readings [{at, values}], `at` in seconds, against `now`. */
    show(readings, now) {
      data = [readings.map((each) => each.at - now), ...series.map((_, i) => readings.map((each) => each.values[i]))];
      series.forEach((each, i) => (each.now.textContent = write(readings.at(-1).values[i])));
      if (plot) plot.setData(drawn());
      else if (box.clientWidth > 0) build();
    },
    close() {
      observer.disconnect();
      document.removeEventListener("themed", build);
      plot?.destroy();
    },
  };
}

function swatch(name) {
  const made = make("span", "swatch");
  made.style.background = `var(${name})`;
  return made;
}

const BAR = { width: 560, height: 190, left: 44, right: 8, top: 10, bottom: 40 };

/** A histogram of {bounds_s, counts} on the fixed scale 0 to 100%, with the objective's line. */
export function histogram(label, buckets, objective) {
  const total = buckets ? buckets.counts.reduce((sum, each) => sum + each, 0) : 0;
  if (!total) return make("figure", "", make("figcaption", "", label), make("p", "soft", "Nothing measured yet."));
  const { bounds_s: bounds, counts } = buckets;
  const inner = BAR.width - BAR.left - BAR.right;
  const tall = BAR.height - BAR.top - BAR.bottom;
  const step = inner / counts.length;
  const x = (i) => BAR.left + i * step;
  const y = (share) => BAR.top + tall * (1 - share);
  const bars = counts.map((each, i) => {
    const word =
      i === 0
        ? `up to ${seconds(bounds[0])}`
        : i < bounds.length
          ? `${seconds(bounds[i - 1])} to ${seconds(bounds[i])}`
          : `above ${seconds(bounds.at(-1))}`;
    return svg(
      "rect",
      {
        class: "hist-bar",
        x: x(i) + 1,
        y: y(each / total),
        width: Math.max(1, step - 2),
        height: tall * (each / total),
      },
      svg("title", {}, `${word}: ${each} of ${total}`),
    );
  });
  const levels = [0, 0.25, 0.5, 0.75, 1].map((share) => [
    svg("line", { class: "grid", x1: BAR.left, x2: BAR.width - BAR.right, y1: y(share), y2: y(share) }),
    svg("text", { class: "tick", x: BAR.left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share}%`),
  ]);
  const names = bounds.map((bound, i) => {
    const place = {
      class: "tick",
      "text-anchor": "end",
      transform: `translate(${x(i + 1) + 4},${BAR.height - BAR.bottom + 12}) rotate(-35)`,
    };
    return svg("text", place, round(bound));
  });
  const mark = objective ? x(position(objective, bounds)) : null;
  const line = objective
    ? [
        svg("line", { class: "objective", x1: mark, x2: mark, y1: BAR.top, y2: BAR.height - BAR.bottom }),
        svg(
          "text",
          {
            class: "objective-text",
            x: mark + (mark > BAR.width * 0.7 ? -5 : 5),
            y: BAR.top + 11,
            "text-anchor": mark > BAR.width * 0.7 ? "end" : "start",
          },
          `objective ${seconds(objective)}`,
        ),
      ]
    : [];
  const within = objective
    ? ` · about ${Math.round(100 * shareWithin(objective, bounds, counts, total))}% within the objective`
    : "";
  const summary = `${total} measured · median ${quantile(0.5, bounds, counts, total)} · 95th percentile ${quantile(0.95, bounds, counts, total)} · mean ${seconds(buckets.sum_s / total)}${within}`;
  return make(
    "figure",
    "",
    make("figcaption", "", label),
    svg(
      "svg",
      { class: "hist", viewBox: `0 0 ${BAR.width} ${BAR.height}`, role: "img", "aria-label": `${label}: ${summary}` },
      levels.flat(),
      bars,
      names,
      line,
    ),
    make("p", "soft", summary),
  );
}

/** The end of a bucket, which is a round number. */
const round = (value) => (value < 1 ? `${+(value * 1000).toFixed(1)} ms` : `${+value.toFixed(1)} s`);

/** Where a value lies, in buckets from the left. */
function position(value, bounds) {
  const i = bounds.findIndex((bound) => value <= bound);
  if (i < 0) return bounds.length + 0.5;
  const low = i === 0 ? 0 : bounds[i - 1];
  return i + (value - low) / (bounds[i] - low);
}

function shareWithin(value, bounds, counts, total) {
  const at = position(value, bounds);
  return counts.reduce((sum, each, i) => sum + each * Math.min(1, Math.max(0, at - i)), 0) / total;
}

/** In which bucket the share of all lies, as its upper end. */
function quantile(share, bounds, counts, total) {
  let seen = 0;
  const i = counts.findIndex((each) => (seen += each) >= share * total);
  return i < bounds.length ? `≤ ${seconds(bounds[i])}` : `> ${seconds(bounds.at(-1))}`;
}
