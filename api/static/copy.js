// Adds a "Copy" button to every command on the page. Everything works without it.
"use strict";

const said = document.createElement("p"); // a button's own name is not read again when it changes
said.className = "unseen";
said.setAttribute("role", "status");
document.getElementById("main").append(said);

for (const block of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) break; // plain http on another machine: the browser offers no clipboard
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  const what = block.getAttribute("data-copy") || "this text";
  button.setAttribute("aria-label", "Copy " + what);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.querySelector("code").textContent);
      button.textContent = "Copied";
      said.textContent = "Copied " + what;
    } catch {
      button.textContent = said.textContent = "Select and copy by hand";
    }
    setTimeout(() => { button.textContent = "Copy"; said.textContent = ""; }, 2000);
  });
  block.append(button);
}
