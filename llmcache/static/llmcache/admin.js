"use strict";

// What the pages do besides: they work without it.

// Buttons that copy a text: shown only where there is a clipboard.
for (const button of document.querySelectorAll("button[data-copies]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
        button.nextElementSibling.textContent = button.dataset.copied;
    });
}

// An invalidation that is not done: this page carries it on, and shows how far it is.
const form = document.querySelector("form[data-carries-on]");

async function carryOn() {
    const section = form.closest("section");
    const response = await fetch(form.action, {
        method: "POST",
        body: new FormData(form),
        headers: { Accept: "application/json" },
    });
    const told = await response.json();
    if (told.finished) {
        location.reload();
        return;
    }
    section.querySelector("progress").max = told.total;
    section.querySelector("progress").value = told.done;
    section.querySelector("[role=status]").textContent = told.trouble || told.said;
    setTimeout(carryOn, told.trouble ? 5000 : 500);
}

if (form) {
    carryOn();
}
