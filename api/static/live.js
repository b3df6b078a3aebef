// Follows servers that start or stop, as they do. Without this the page is loaded again instead.
"use strict";

// A browser opens six connections to one host, and the page needs some for itself.
for (const going of [...document.querySelectorAll("[data-progress]")].slice(0, 3)) {
  const bar = going.querySelector("progress");
  const words = going.querySelector("[role=status]");
  const news = new EventSource(going.dataset.progress);
  news.addEventListener("error", () => {
    if (news.readyState === EventSource.CLOSED) words.textContent = "Reload this page to see how it goes on.";
  });
  news.addEventListener("message", (event) => {
    const now = JSON.parse(event.data);
    words.textContent = now.message;
    if (now.percent === null) bar.removeAttribute("value");
    else bar.value = now.percent;
    if (!now.over) return;
    news.close();
    if (now.failed) {
      bar.hidden = true;
      going.classList.add("failed");
      const state = going.parentElement.querySelector(".state");
      state.className = "state off";
      state.textContent = "did not start";
      const control = going.parentElement.querySelector("a.button"); // there is nothing to stop any more
      if (control) {
        control.textContent = "Reload";
        control.removeAttribute("aria-label");
        control.href = going.dataset.then.split("?")[0];
      }
    } else {
      window.location.assign(now.state === "running" ? going.dataset.then : going.dataset.then.split("?")[0]);
    }
  });
}
