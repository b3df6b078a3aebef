// A public key's file may be dropped on the form, or chosen: its text is put where one would paste it, for all to see.
// A private key is not even shown, and never sent. Everything works without this.
"use strict";

for (const place of document.querySelectorAll("[data-drop]")) {
  const area = place.querySelector("textarea");
  const chooser = place.querySelector("input[type=file]");
  const said = place.querySelector("[role=status]");
  for (const hint of place.querySelectorAll("[data-with-script]")) hint.hidden = false;

  const take = async (file) => {
    chooser.value = ""; // what is sent is the text, as it stands there
    if (!file) return;
    const text = file.size > 16384 ? "" : (await file.text()).trim();
    if (text.includes("PRIVATE KEY")) {
      said.textContent = "That is a private key. It stays on your computer: choose the file that ends in .pub.";
    } else if (!text || text.includes("\0") || text.includes("\ufffd")) {
      said.textContent = "That is no public key: choose the small text file that ends in .pub.";
    } else {
      area.value = text;
      said.textContent = "The key of " + file.name + " stands above.";
    }
  };

  chooser.addEventListener("change", () => take(chooser.files[0]));
  place.addEventListener("dragover", (event) => {
    event.preventDefault();
    place.classList.add("over");
  });
  place.addEventListener("dragleave", (event) => {
    if (!place.contains(event.relatedTarget)) place.classList.remove("over");
  });
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) take(file);
    else area.value = event.dataTransfer.getData("text").trim() || area.value;
  });
}
