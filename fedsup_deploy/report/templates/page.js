"use strict";
(() => {
  const found = (id) => document.getElementById(id);
  const read = (name) => JSON.parse(found("data-" + name)?.textContent ?? "null");
  const config = read("config"), figures = read("figures"), explorer = read("explorer");

  // Expressions are interpreted, never compiled: the page lets nothing be evaluated.
  const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, tooltip: false, defaultStyle: false, logLevel: 1, config };
  const draw = (element, spec, more) =>
    vegaEmbed(element, { width: "container", autosize: { type: "fit-x", contains: "padding" }, ...spec }, { ...options, ...more });
  // Legends stand beside each other where there is room, else below each other.
  const narrow = { config: { ...config, legend: { ...config.legend, layout: { top: { direction: "vertical" } } } } };
  const fitting = (element) => (element.clientWidth < 480 ? narrow : {});
  // The values of a candidate, by the names that its device gives them.
  const by_name = (names, values) => Object.fromEntries(Object.keys(names).map((name, at) => [name, values[at]]));
  const pause = () => new Promise((resolve) => setTimeout(resolve));

  const number = (value) =>
    Number.isInteger(value) || Math.abs(value) >= 1000
      ? Math.round(value).toLocaleString("en-US")
      : String(Number(value.toPrecision(3)));
  const percent = (value) => (100 * value).toFixed(1) + " %";
  const bounded = (known, told) =>
    told(known[0]) + (known.length > 1 ? " (" + told(known[1]).replace(" %", "") + " to " + told(known[2]).replace(" %", "") + ")" : "");

  // What a mark says where it is pointed at: its values, by the names that its plot has for them.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.appendChild(tip);
  const tell = (_, event, __, value) => {
    tip.hidden = value === null || value === undefined || typeof value !== "object";
    if (tip.hidden) return;
    const list = document.createElement("dl");
    for (const [name, text] of Object.entries(value)) add(list, name === "what" ? "" : name, String(text));
    tip.replaceChildren(list);
    const left = Math.min(event.pageX + 12, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = Math.max(8, left) + "px";
    tip.style.top = event.pageY + 16 + "px";
  };
  const add = (list, name, value) => {
    const line = document.createElement("div");
    for (const [kind, text] of [["dt", name], ["dd", value]]) {
      line.appendChild(document.createElement(kind)).textContent = text;
    }
    list.appendChild(line);
  };

  const open_fronts = (is_open) => {
    for (const front of document.querySelectorAll("[data-front]")) front.open = is_open(front);
  };

  const explore = async () => {
    const choice = { device: found("device"), price: found("price"), objective: found("objective") };
    const plot = found("candidates");
    let rows = [], at = 0, kept = 0, view = null, drawing = 0;

    const titled = (part, titles) => {
      if (Array.isArray(part)) return part.map((each) => titled(each, titles));
      if (part === null || typeof part !== "object") return titles[part] ?? part;
      return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, titled(value, titles)]));
    };

    // Whatever is not known of a device cannot be chosen for it.
    const offer = (select, known) => {
      for (const option of select.options) {
        option.disabled = !(option.value in known);
        option.textContent = option.dataset.called + (option.disabled ? " (not known here)" : "");
      }
      if (select.selectedOptions[0].disabled) select.value = Object.keys(known)[0];
    };

    const found_for = () => explorer.searches.filter((search) => choice.device.value in search.devices);

    const collect = () => {
      const first = found_for()[0].devices[choice.device.value];
      offer(choice.price, first.prices);
      offer(choice.objective, first.objectives);
      const price = choice.price.value, objective = choice.objective.value;
      rows = [];
      const limits = [];
      for (const search of found_for()) {
        const device = search.devices[choice.device.value];
        const of = explorer.searches.length > 1 ? "limit of " + search.name : "limit";
        if (price in device.limits) limits.push({ x: device.limits[price], text: of });
        for (const known of device.candidates) {
          const candidate = {
            ...known,
            prices: by_name(device.prices, known.prices),
            objectives: by_name(device.objectives, known.objectives),
          };
          const [x, xl, xh] = candidate.prices[price] ?? [], [y, yl, yh] = candidate.objectives[objective] ?? [];
          if (x === undefined || y === undefined) continue;
          rows.push({
            x, xl: xl ?? null, xh: xh ?? null, y, yl: yl ?? null, yh: yh ?? null,
            role: candidate.role, arch: candidate.arch, search: search.name, candidate, device,
          });
        }
      }
      rows.sort((one, other) => one.x - other.x || one.y - other.y || (one.arch < other.arch ? -1 : 1));
      rows.forEach((row, index) => { row.index = index; });
      const edge = explorer.far * Math.max(...rows.map((row) => row.x));
      const beyond = limits.filter((limit) => limit.x > edge).map((limit) => limit.text + ": " + number(limit.x));
      // Texts of several limits stand in lines of their own; a line without any sign would take no room.
      const below = (number, lines) => [...Array(number).fill("\u200b"), ...lines];
      const drawn = limits.filter((limit) => limit.x <= edge);
      // Only the front and the picks have strokes.
      const ends = (row) => (row.role === "other" ? [row.x] : [row.xl ?? row.x, row.xh ?? row.x]);
      const places = [...rows.flatMap(ends), ...drawn.map((limit) => limit.x)];
      const middle = (Math.min(...places) + Math.max(...places)) / 2;
      const plain = rows.map(({ candidate, device, ...row }) => row);
      const datasets = {
        candidates: plain,
        limits: drawn.map((limit, line) => ({ ...limit, text: below(line, [limit.text]), is_left: limit.x < middle })),
        beyond: beyond.length ? [{ text: below(drawn.length, beyond) }] : [],
        chosen: [],
      };
      return { datasets, titles: { X_TITLE: first.prices[price], Y_TITLE: first.objectives[objective] } };
    };

    const blocks = (await draw(found("candidate-blocks"), explorer.network)).view;

    const show = async (index) => {
      at = index;
      const row = rows[index];
      const { candidate, device } = row;
      const is = { other: "candidate", front: "on the front", pick: "the pick" }[row.role];
      found("candidate-name").textContent = row.arch;
      const list = document.createElement("dl");
      add(list, "is", is + (explorer.searches.length > 1 ? ", " + row.search : ""));
      for (const [name, known] of Object.entries(candidate.objectives)) {
        const on = candidate.is_predicted ? ", predicted" : candidate.images ? ", " + number(candidate.images) + " images it was chosen by" : "";
        add(list, device.objectives[name], bounded(known, percent) + on);
      }
      for (const [name, known] of Object.entries(candidate.prices)) {
        const of = name in device.limits ? ", " + Math.round((100 * known[0]) / device.limits[name]) + " % of the limit" : "";
        add(list, device.prices[name], bounded(known, number) + of);
      }
      found("candidate-facts").replaceChildren(...list.children);
      plot.setAttribute("aria-valuenow", index + 1);
      plot.setAttribute("aria-valuetext", row.arch + ", " + is + ": " + percent(row.y) + " at " + number(row.x));
      for (const button of document.querySelectorAll("button[data-arch]")) {
        const is_it = button.dataset.arch === row.arch && button.dataset.device === choice.device.value;
        button.setAttribute("aria-pressed", is_it);
      }
      const { candidate: _, device: __, ...plain } = row;
      const network = explorer.architectures[row.arch].map((place, at) => ({ ...explorer.blocks[place], at }));
      await Promise.all([
        view.data("chosen", [plain]).runAsync(),
        blocks.height(explorer.step * network.length).data("rows", network).runAsync(),
      ]);
    };

    const keep = (index) => { kept = index; return show(index); };
    // The first search is the one whose bundles are here.
    const is_pick = (row) => row.role === "pick" && row.search === found_for()[0].name;
    const index_of = (is_it) => Math.max(0, rows.findIndex(is_it));

    const redraw = async (is_it) => {
      const turn = ++drawing;
      plot.setAttribute("aria-busy", "true");
      const { datasets, titles } = collect();
      const spec = { ...titled(explorer.plot, titles), datasets };
      const title = choice.device.value + ": " + titles.Y_TITLE + " against " + titles.X_TITLE;
      found("candidates-title").textContent = title;
      const drawn = await draw(found("candidates-plot"), spec, fitting(plot));
      if (turn !== drawing) return drawn.finalize();  // something else was chosen meanwhile
      view?.finalize();
      view = drawn.view;
      view.addEventListener("pointermove", (_, item) => { if (item?.datum?.arch) show(item.datum.index); });
      view.addEventListener("click", (_, item) => { if (item?.datum?.arch) keep(item.datum.index); });
      plot.setAttribute("aria-valuemax", rows.length);
      open_fronts((front) => front.dataset.front === choice.device.value);
      await keep(index_of(is_it ?? is_pick));
      plot.setAttribute("aria-busy", "false");
    };

    plot.addEventListener("pointerleave", () => show(kept));
    plot.addEventListener("keydown", (event) => {
      const next = { ArrowRight: 1, ArrowLeft: -1 }[event.key], along = { ArrowUp: 1, ArrowDown: -1 }[event.key];
      if (next !== undefined) keep(Math.min(rows.length - 1, Math.max(0, at + next)));
      else if (along !== undefined) {
        // Beyond the end of the front lies its end.
        const front = [...rows.keys()].filter((index) => rows[index].role !== "other");
        const ahead = front.filter((index) => (index - at) * along > 0);
        keep((along > 0 ? ahead[0] : ahead.at(-1)) ?? (along > 0 ? front.at(-1) : front[0]));
      } else if (event.key === "End") keep(rows.length - 1);
      else if (event.key === "Home") {
        // From a pick to that of the next search; from elsewhere to that of the first.
        const picks = [...rows.keys()].filter((index) => rows[index].role === "pick");
        keep(picks.includes(at) ? picks[(picks.indexOf(at) + 1) % picks.length] : index_of(is_pick));
      }
      else return;
      event.preventDefault();
    });
    for (const select of Object.values(choice)) select.addEventListener("change", () => redraw());
    for (const button of document.querySelectorAll("button[data-arch]")) {
      button.addEventListener("click", async () => {
        const { arch, device, search } = button.dataset;
        choice.device.value = device;
        await redraw((row) => row.arch === arch && row.search === explorer.searches[search].name);
        found("back").hidden = false;
        back_to = button;
        found("explorer").scrollIntoView();
        plot.focus({ preventScroll: true });
      });
    }
    let back_to = null;
    found("back").addEventListener("click", () => {
      found("back").hidden = true;
      back_to.closest("details").open = true;
      back_to.scrollIntoView({ block: "center" });
      back_to.focus({ preventScroll: true });
    });
    await redraw();
  };

  let explored = null;
  const explore_once = () => (explored ??= explorer ? explore() : Promise.resolve());
  const begun = new Set();
  const draw_once = (element) => {
    if (begun.has(element)) return null;
    begun.add(element);
    return draw(element, figures[element.dataset.figure], { tooltip: tell, ...fitting(element) });
  };
  const plots = [...document.querySelectorAll("[data-figure]")];
  const start = async () => {
    await explore_once();
    for (const element of plots) {
      await draw_once(element);
      await pause();
    }
    document.documentElement.dataset.ready = "true";
  };
  // Whoever prints before all is drawn: nothing here waits for the clock, so all is drawn when this has returned.
  addEventListener("beforeprint", () => {
    explore_once().then(() => open_fronts(() => true));
    plots.forEach(draw_once);
  });
  addEventListener("afterprint", () => open_fronts((front) => front.dataset.front === found("device").value));
  setTimeout(start);  // what can be read is there first
})();
