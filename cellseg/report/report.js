"use strict";
(() => {
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const root = document.documentElement;

  /* Theme: what the system wants, until the switch is used. */
  const themeButton = document.querySelector(".theme");
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const nameTheme = () => { themeButton.textContent = isDark() ? "Light colours" : "Dark colours"; };
  themeButton.hidden = false;
  nameTheme();
  themeButton.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; nameTheme(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);

  /* Filters of each gallery. */
  for (const section of all(".browse")) {
    const controls = section.querySelector(".controls");
    const [kind, group, correct, status] = ["kind", "class", "correct", "status"]
      .map((name) => controls.querySelector(`[data-role=${name}]`));
    const cards = all(".card", section);
    const apply = () => {
      const wantedClass = group ? group.value : "";
      const wantedKind = kind.value;
      let shown = 0;
      for (const card of cards) {
        const tokens = card.dataset.errors.split(" ");
        const fits = (!wantedClass && !wantedKind) || tokens.some((token) => {
          const [number, what] = token.split(":");
          return (!wantedClass || number === wantedClass) && what === wantedKind;
        });
        card.hidden = !fits;
        shown += fits;
        for (const cell of all(".cell", card)) {
          const other = (wantedClass && cell.dataset.class !== wantedClass)
            || (wantedKind && !cell.classList.contains(wantedKind) && !cell.classList.contains("correct"));
          cell.classList.toggle("off", Boolean(other));
        }
      }
      section.classList.toggle("hide-correct", !correct.checked);
      viewer.classList.toggle("hide-correct", !correct.checked);
      status.textContent = `${shown} of ${cards.length} images`;
    };
    for (const control of [kind, group, correct]) if (control) control.addEventListener("change", apply);
    controls.hidden = false;
    section.applyFilters = apply;
  }

  /* The viewer: one image, both panels moved and zoomed together. */
  const viewer = document.querySelector("dialog");
  const holder = viewer.querySelector(".holder");
  const title = viewer.querySelector("h4");
  let card = null, place = null, view = null;

  const panels = () => all(".panel", holder);
  const size = () => panels()[0].dataset.hw.split(" ").map(Number);
  const draw = () => { for (const panel of panels()) panel.setAttribute("viewBox", view.join(" ")); };
  const reset = () => { const [h, w] = size(); view = [0, 0, w, h]; draw(); };
  const clamp = () => {
    const [h, w] = size();
    view[0] = Math.min(Math.max(view[0], 0), w - view[2]);
    view[1] = Math.min(Math.max(view[1], 0), h - view[3]);
  };
  const zoom = (factor, atX = 0.5, atY = 0.5) => {
    const [h, w] = size();
    const scale = Math.min(1, Math.max(view[2] / factor / w, 8 / Math.max(h, w)));
    const [x, y] = [view[0] + atX * view[2], view[1] + atY * view[3]];
    view = [x - atX * w * scale, y - atY * h * scale, w * scale, h * scale];
    clamp();
    draw();
  };
  const move = (right, down) => { view[0] += right * view[2]; view[1] += down * view[3]; clamp(); draw(); };
  const put = (next) => {
    takeBack();
    card = next;
    place = document.createComment("");
    card.replaceWith(place);
    holder.append(card);
    title.textContent = card.querySelector("h4").textContent;
    reset();
  };
  const takeBack = () => {
    if (!card) return;
    reset();
    place.replaceWith(card);
    card = null;
  };
  const step = (by) => {
    const cards = [...place.parentNode.childNodes].filter((node) => node === place
      || (node.nodeType === 1 && node.matches(".card:not([hidden])")));
    const next = cards[cards.indexOf(place) + by];
    if (next) put(next);
  };
  const open = (next) => { put(next); viewer.showModal(); viewer.focus(); };

  for (const button of all(".enlarge")) {
    button.hidden = false;
    button.addEventListener("click", () => open(button.closest(".card")));
  }
  for (const panel of all(".panel")) {
    panel.addEventListener("dblclick", () => { if (!viewer.open) open(panel.closest(".card")); });
  }
  viewer.addEventListener("close", () => {
    const button = card && card.querySelector(".enlarge");
    takeBack();
    if (button) button.focus();
  });
  const actions = {
    in: () => zoom(1.5), out: () => zoom(1 / 1.5), whole: reset, next: () => step(1), previous: () => step(-1),
    close: () => viewer.close(),
  };
  for (const button of all("[data-act]", viewer)) button.addEventListener("click", actions[button.dataset.act]);
  const keys = {
    "+": actions.in, "=": actions.in, "-": actions.out, 0: reset, n: actions.next, p: actions.previous,
    PageDown: actions.next, PageUp: actions.previous,
    ArrowLeft: () => move(-0.15, 0), ArrowRight: () => move(0.15, 0),
    ArrowUp: () => move(0, -0.15), ArrowDown: () => move(0, 0.15),
  };
  viewer.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  holder.addEventListener("wheel", (event) => {
    const panel = event.target.closest(".panel");
    if (!panel) return;
    event.preventDefault();
    const box = panel.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  }, { passive: false });
  let dragged = null;
  holder.addEventListener("pointerdown", (event) => {
    if (event.target.closest(".panel")) dragged = [event.clientX, event.clientY];
  });
  addEventListener("pointerup", () => { dragged = null; });
  addEventListener("pointermove", (event) => {
    if (!dragged || !card) return;
    const box = panels()[0].getBoundingClientRect();
    move((dragged[0] - event.clientX) / box.width, (dragged[1] - event.clientY) / box.height);
    dragged = [event.clientX, event.clientY];
  });

  for (const section of all(".browse")) section.applyFilters();
})();
