// Adds a "Copy" button to every command on the page. Everything works without it.
"use strict";

for (const block of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) break; // plain http on another machine: the browser offers no clipboard
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy " + (block.getAttribute("data-copy") || "this text"));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  block.append(button);
}
