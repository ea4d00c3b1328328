"use strict";
// Draws the figures out of what is packed in the page. It loads nothing.
const at = (selector, root = document) => root.querySelector(selector);
const make = (name, properties = {}) => Object.assign(document.createElement(name), properties);

async function unpacked(element) {
  const bytes = Uint8Array.from(atob(element.textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// ---- light and dark
const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches);
const isNarrow = () => innerWidth < 720;

// ---- figures
let packed;
const figures = [];

class Figure {
  constructor(element, plot) {
    this.element = element;
    this.plot = plot;
    this.picture = at(".picture", element);
    this.keys = Object.keys(plot.views).map((key) => key.split(packed.joint));
    this.chosen = [...this.keys[0]];
    this.point = [0, -1];
    this.addControls();
    this.picture.addEventListener("keydown", (event) => this.onKey(event));
  }

  options(place) {
    const same = (key) => key.slice(0, place).every((part, i) => part === this.chosen[i]);
    return [...new Set(this.keys.filter(same).map((key) => key[place]))];
  }

  addControls() {
    this.selects = this.plot.selectors.map((name, place) => {
      const select = make("select");
      select.addEventListener("change", () => {
        this.chosen[place] = select.value;
        this.draw();
      });
      const label = make("label", { textContent: name });
      label.append(select);
      at(".controls", this.element).append(label);
      return select;
    });
    this.refresh();
  }

  refresh() {
    this.selects.forEach((select, place) => {
      const options = this.options(place);
      if (!options.includes(this.chosen[place])) this.chosen[place] = options[0];
      select.replaceChildren(...options.map((text) => make("option", { textContent: text, value: text })));
      select.value = this.chosen[place];
      select.disabled = options.length < 2;
    });
  }

  get view() {
    return this.plot.views[this.chosen.join(packed.joint)];
  }

  async draw() {
    this.refresh();
    const view = themed(this.view);
    this.is3d = view.data.some((trace) => trace.type === "scatter3d");
    this.element.classList.toggle("wide", this.is3d);
    this.picture.setAttribute("aria-label", `${this.view.alt}. ${this.view.note}`);
    at("figcaption", this.element).textContent = this.view.note;
    this.point = [0, -1];
    const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
    await Plotly.react(this.picture, view.data, layoutOf(view.layout, this.is3d), config);
    if (this.is3d && !this.isLinked) this.linkScenes();
    this.element.dataset.drawn = "true";
  }

  linkScenes() {
    this.isLinked = true;
    this.picture.on("plotly_relayout", (change) => {
      for (const [from, to] of [["scene", "scene2"], ["scene2", "scene"]]) {
        const camera = change[`${from}.camera`];
        if (camera && !change[`${to}.camera`]) {
          Plotly.relayout(this.picture, { [`${to}.camera`]: camera, [`${from}.camera`]: camera });
        }
      }
    });
  }

  // arrows go from point to point, or turn the scenes
  onKey(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (!step || event.target !== this.picture) return;
    event.preventDefault();
    if (this.is3d) this.turn(...step);
    else this.pointTo(...step);
  }

  turn(up, right) {
    const camera = structuredClone(this.picture._fullLayout.scene.camera);
    const { x, y, z } = camera.eye;
    const angle = 0.15 * right;
    camera.eye = {
      x: x * Math.cos(angle) - y * Math.sin(angle),
      y: x * Math.sin(angle) + y * Math.cos(angle),
      z: z - 0.2 * up,
    };
    Plotly.relayout(this.picture, { "scene.camera": camera, "scene2.camera": camera });
  }

  pointTo(down, right) {
    const traces = this.picture.data.map((trace, i) => ({ trace, i })).filter(({ trace }) => Array.isArray(trace.hovertext));
    if (!traces.length) return;
    const line = (this.point[0] + down + traces.length) % traces.length;
    const { trace, i } = traces[line];
    const n = trace.hovertext.length;
    this.point = [line, n ? (Math.max(this.point[1], down ? 0 : -1) + right + n) % n : 0];
    Plotly.Fx.hover(this.picture, [{ curveNumber: i, pointNumber: this.point[1] }]);
    const [escaped, signs] = [trace.hovertext[this.point[1]] ?? "", { lt: "<", gt: ">", amp: "&" }];
    at(".spoken", this.element).textContent = escaped.replace(/&(lt|gt|amp);/g, (_, name) => signs[name]);
  }
}

function themed(view) {
  const text = JSON.stringify(view);
  if (!isDark()) return JSON.parse(text);
  return JSON.parse(text.replace(/"#[0-9A-F]{6}/g, (color) => `"${packed.dark[color.slice(1)] ?? color.slice(1)}`));
}

function layoutOf(own, is3d) {
  const style = getComputedStyle(root);
  const [ink, line, card] = ["--ink", "--line", "--card"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, size: 12, family: "system-ui, sans-serif" },
    margin: { l: 55, r: 15, t: 30, b: 45 },
    height: 400,
    hovermode: "closest",
    hoverlabel: { bgcolor: card, bordercolor: line, font: { color: ink }, align: "left" },
    legend: { orientation: "h", y: -0.22, yanchor: "top", x: 0, font: { size: 11 } },
    ...own,
    xaxis: { ...axis, ...own.xaxis },
    yaxis: { ...axis, ...own.yaxis },
  };
  if (is3d) addScenes(layout, own, line);
  return layout;
}

function addScenes(layout, own, line) {
  const places = isNarrow()
    ? [{ x: [0, 1], y: [0.52, 1] }, { x: [0, 1], y: [0, 0.48] }]
    : [{ x: [0, 0.495], y: [0, 1] }, { x: [0.505, 1], y: [0, 1] }];
  delete layout.xaxis;
  delete layout.yaxis;
  layout.height = isNarrow() ? 760 : 450;
  layout.margin = { l: 0, r: 0, t: 30, b: 0 };
  layout.legend = { ...layout.legend, y: -0.02, itemsizing: "constant" };
  layout.annotations = [];
  ["scene", "scene2"].forEach((name, i) => {
    const scene = { ...own[name], domain: places[i] };
    for (const key of ["xaxis", "yaxis", "zaxis"]) {
      const plane = { gridcolor: line, zerolinecolor: line, showbackground: false, nticks: 5, tickfont: { size: 9 } };
      scene[key] = { ...plane, ...own[name][key] };
    }
    layout[name] = scene;
    const place = { xref: "paper", yref: "paper", x: places[i].x[0], y: places[i].y[1], xanchor: "left", yanchor: "bottom" };
    layout.annotations.push({ ...place, text: own.meta[i], showarrow: false, font: { size: 13 } });
  });
}

async function redraw() {
  for (const figure of figures) await figure.draw();
}

async function drawFigures() {
  packed = JSON.parse(await unpacked(at("#figures")));
  const script = make("script", { text: await unpacked(at("#plotly")) });
  document.head.append(script);
  for (const element of document.querySelectorAll(".plot")) {
    const plot = packed.plots[element.dataset.plot];
    if (Object.keys(plot.views).length) figures.push(new Figure(element, plot));
    else element.remove();
  }
  await redraw();
}
