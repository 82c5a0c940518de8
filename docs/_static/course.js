// What moves on the pages without a kernel: demos, guesses, checks of numbers, the filters of the claims.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// A demo has a picture and a sentence for each setting of its controls, numbered as the digits of a clock.
for (const demo of all(".course-demo")) {
    const controls = all("input, select", demo);
    const sentences = JSON.parse(demo.dataset.sentences);
    const picture = demo.querySelector("img"), sentence = demo.querySelector("[role=status]");
    const address = place => picture.src.replace(/\d+\.webp$/, `${place}.webp`);
    const size = control => control.options?.length ?? Number(control.max) + 1;
    const show = () => {
        let place = 0;
        for (const control of controls) {
            place = place * size(control) + Number(control.value);
            if (control.type === "range") {
                const name = JSON.parse(control.dataset.names)[control.value];
                control.nextElementSibling.value = name;
                control.setAttribute("aria-valuetext", name);
            }
        }
        picture.src = address(place);
        sentence.textContent = sentences[place];
    };
    const fetchAll = () => sentences.forEach((_, place) => (new Image().src = address(place)));
    demo.addEventListener("input", show);
    demo.addEventListener("reset", () => setTimeout(show)); // once the controls are back
    demo.addEventListener("submit", event => event.preventDefault());
    demo.addEventListener("pointerenter", fetchAll, { once: true }); // so that no step waits for the disk
}

// A guess is kept in the browser and stands in the table that answers.
const page = location.pathname.split("/").pop();
const kept = {
    get: name => { try { return localStorage.getItem(`${page} ${name}`) ?? ""; } catch { return ""; } },
    set: (name, value) => { try { localStorage.setItem(`${page} ${name}`, value); } catch { /* not kept, then */ } },
};
for (const input of all("input[data-guess]")) {
    const show = () => all(`.course-guessed[data-guess="${input.dataset.guess}"]`)
        .forEach(place => (place.textContent = input.value.trim() || "–"));
    input.value = kept.get(input.dataset.guess);
    input.addEventListener("input", () => { kept.set(input.dataset.guess, input.value); show(); });
    show();
}

// A number is right, or one of the known mistakes, or neither; 1/3, 2e-4, 10,000 and 0,5 are numbers, too.
const plain = text => text.replaceAll(/[−–]/g, "-")
    .replace(/^\s*-?[1-9]\d{0,2}(,\d{3})+(?!\d)/, whole => whole.replaceAll(",", "")).replaceAll(",", ".");
const numberIn = text => {
    const parts = plain(text).split("/").map(part => (part.trim() ? Number(part) : NaN));
    return parts.length > 2 ? NaN : parts.reduce((a, b) => a / b);
};
for (const form of all(".course-check")) {
    const { told, tolerance, hint } = JSON.parse(form.dataset.check);
    form.addEventListener("submit", event => {
        event.preventDefault();
        const value = numberIn(form.querySelector("input").value);
        const near = ([wanted]) => Math.abs(value - wanted) <= tolerance * (Math.abs(wanted) || 1);
        const place = told.findIndex(near);
        const words = Number.isNaN(value) ? "A number is expected, such as 0.25, 1/4 or 2.5e-1."
            : place < 0 ? `Not yet: ${value.toPrecision(4)} is not it. ${hint}`
            : `${place ? "Not yet." : "Right."} ${told[place][1]}`;
        form.querySelector("[role=status]").textContent = words;
    });
}

// The claims that fit the menus and hold the text.
for (const form of all(".course-filter")) {
    const rows = all("table tbody tr").map(row => ({
        row,
        document: row.cells[0].textContent.trim().split("-")[0],
        verdict: row.cells[2].textContent.trim(),
        text: row.textContent.toLowerCase(),
    }));
    const show = () => {
        const { document: from, verdict, text } = form.elements;
        const fits = claim => (!from.value || claim.document === from.value)
            && (!verdict.value || claim.verdict === verdict.value)
            && claim.text.includes(text.value.trim().toLowerCase());
        for (const claim of rows) claim.row.hidden = !fits(claim);
        form.querySelector("output").value = `${rows.filter(fits).length} of ${rows.length}`;
    };
    form.hidden = false;
    form.addEventListener("input", show);
    form.addEventListener("submit", event => event.preventDefault());
    show();
}

// A formula that is too wide scrolls, by the keyboard, too.
window.MathJax?.startup?.promise?.then(() => {
    for (const formula of all("mjx-container[display]"))
        if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
});
