// Shows the tables: searched, sorted, page by page, downloaded.
const SIZE = 50;
const table = { columns: [], rows: [], found: [], sort: [-1, 1], page: 0, file: "results.csv" };

function parse(csv) {
  const rows = [[]];
  const cell = /(?:"((?:[^"]|"")*)"|([^",\n]*))(,|\n|$)/gy;
  for (let match; cell.lastIndex < csv.length && (match = cell.exec(csv)); ) {
    rows.at(-1).push(match[1] === undefined ? match[2] : match[1].replaceAll('""', '"'));
    if (match[3] === "\n") rows.push([]);
  }
  return rows.filter((row) => row.length);
}

const isNumber = (text) => text === "" || text === "nan" || !Number.isNaN(Number(text));

async function openTable(number) {
  const element = document.querySelectorAll("script.table")[number];
  const [columns = [], ...rows] = element.textContent.trim() ? parse(await unpacked(element)) : [];
  const kinds = columns.map((_, i) => rows.some((row) => row[i] !== "") && rows.every((row) => isNumber(row[i])));
  Object.assign(table, { columns, rows, kinds, sort: [-1, 1], file: element.dataset.file });
  table.lines = new Map(rows.map((row) => [row, row.join(" ").toLowerCase()]));
  filter();
}

function filter() {
  const words = at("#search").value.toLowerCase().split(/\s+/).filter(Boolean);
  table.found = table.rows.filter((row) => words.every((word) => table.lines.get(row).includes(word)));
  const [column, sign] = table.sort;
  if (column >= 0) table.found.sort((a, b) => sign * compare(a[column], b[column], table.kinds[column], sign));
  table.page = 0;
  show();
}

function compare(a, b, isNumeric, sign) {
  if (!isNumeric) return a.localeCompare(b, "en", { numeric: true });
  const [x, y] = [a, b].map((text) => (text === "" || text === "nan" ? NaN : Number(text)));
  if (Number.isNaN(x) || Number.isNaN(y)) return sign * (Number.isNaN(x) - Number.isNaN(y)); // last
  return x - y;
}

function show() {
  const heads = table.columns.map((name, i) => {
    const isSorted = table.sort[0] === i;
    const arrow = isSorted ? (table.sort[1] > 0 ? " ▲" : " ▼") : "";
    const button = make("button", { type: "button", textContent: name + arrow });
    button.addEventListener("click", () => {
      table.sort = [i, isSorted ? -table.sort[1] : 1];
      filter();
      document.querySelectorAll("#long th button")[i].focus();
    });
    const head = make("th", { scope: "col", className: table.kinds[i] ? "number" : "" });
    head.setAttribute("aria-sort", isSorted ? (table.sort[1] > 0 ? "ascending" : "descending") : "none");
    head.append(button);
    return head;
  });
  const first = table.page * SIZE;
  const shown = table.found.slice(first, first + SIZE);
  const row = make("tr");
  row.append(...heads);
  at("#long thead").replaceChildren(row);
  at("#long tbody").replaceChildren(...shown.map(lineOf));
  const last = Math.min(first + SIZE, table.found.length);
  const range = table.found.length ? `${first + 1} to ${last} of ` : "";
  at("#count").textContent = `Rows ${range}${table.found.length} found, ${table.rows.length} in all`;
  at("#download").textContent = `Download ${table.found.length} rows (CSV)`;
  at("#before").disabled = !table.page;
  at("#after").disabled = last >= table.found.length;
}

function lineOf(cells) {
  const line = make("tr");
  line.append(...cells.map((text, i) => {
    const isShort = table.kinds[i] && text !== "" && text !== "nan";
    const textContent = isShort ? String(Number(Number(text).toPrecision(5))) : text === "nan" ? "–" : text;
    return make("td", { textContent, title: text, className: table.kinds[i] ? "number" : "" });
  }));
  return line;
}

function download() {
  const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = [table.columns, ...table.found].map((row) => row.map(quoted).join(","));
  const href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  make("a", { href, download: table.file }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}

function turnPage(by) {
  table.page += by;
  show();
  at(".scroll").scrollTop = 0;
}
