(() => {
  "use strict";
  document.documentElement.classList.add("js");
  for (const act of document.querySelectorAll(".act")) {
    const links = [...act.querySelectorAll("a.step")];
    const details = [...act.querySelectorAll(".detail")];
    const steps = act.querySelector(".steps");
    const all = act.querySelector("button.all");

    const choose = (id, show) => {
      for (const detail of details) detail.classList.toggle("chosen", detail.dataset.step === id);
      for (const link of links) {
        if (link.dataset.step === id) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
      const chosen = details.find((detail) => detail.dataset.step === id);
      if (!show || !chosen) return;
      // On a narrow screen the message is below the figure.
      const { top, bottom } = chosen.getBoundingClientRect();
      if (top > innerHeight - 80 || bottom < 80) chosen.scrollIntoView({ block: "start" });
    };

    for (const link of act.querySelectorAll("a[data-step]")) { // also those of the table
      link.addEventListener("click", (event) => {
        event.preventDefault();
        choose(link.dataset.step, true);
        history.replaceState(null, "", link.getAttribute("href"));
      });
    }
    for (const [i, link] of links.entries()) {
      link.addEventListener("keydown", (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (event.key === " ") {
          event.preventDefault();
          link.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
        } else if (by) {
          event.preventDefault();
          links[(i + by + links.length) % links.length].focus();
        }
      });
    }
    all.addEventListener("click", () => {
      const pressed = steps.classList.toggle("show-all");
      all.setAttribute("aria-pressed", String(pressed));
    });

    const asked = links.find((link) => link.getAttribute("href") === location.hash);
    const first = asked || links.find((link) => link.classList.contains("failed")) || links.find((link) => link.classList.contains("ran")) || links[0];
    const failed = details.find((detail) => detail.classList.contains("failed"));
    choose(!asked && failed ? failed.dataset.step : first.dataset.step, false);
  }
})();
