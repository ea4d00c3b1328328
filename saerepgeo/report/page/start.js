// Starts all when the page is there.
at("#theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  redraw();
});
prefersDark.addEventListener("change", redraw);
let wasNarrow = isNarrow();
addEventListener("resize", () => {
  if (wasNarrow !== isNarrow()) redraw();
  wasNarrow = isNarrow();
});
if (at("#table-name")) {
  at("#table-name").addEventListener("change", (event) => openTable(event.target.value));
  at("#search").addEventListener("input", filter);
  at("#download").addEventListener("click", download);
  at("#before").addEventListener("click", () => turnPage(-1));
  at("#after").addEventListener("click", () => turnPage(1));
}
const started = [drawFigures(), at("#table-name") ? openTable(0) : null];
Promise.all(started).then(
  () => { root.dataset.ready = "true"; },
  (error) => {
    at("#trouble").hidden = false;
    at("#trouble").textContent = `Figures or tables could not be drawn (${error.message}); a browser of 2023 or newer is needed.`;
    throw error;
  },
);
