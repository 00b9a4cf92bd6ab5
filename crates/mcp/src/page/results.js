// The pictures that were made: side by side, and each against the picture that it was made from.

export class Results {
  #section;
  #gallery;
  #compare;
  #split;
  #shown;
  #acts;

  /** `acts`: {shown, use, seed}, what is done as a result is looked at, worked on further, or its seed taken. */
  constructor(section, compare, acts) {
    this.#section = section;
    this.#gallery = section.querySelector("#gallery");
    this.#compare = compare;
    this.#split = compare.querySelector("#split");
    this.#acts = acts;
    this.#split.addEventListener("input", () => this.#cut());
    compare.querySelector("#after").addEventListener("load", ({ target }) =>
      compare.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight));
    new ResizeObserver(() => this.#cut()).observe(compare);
  }

  /** Puts the pictures of a run first: [{blob, id, seed}], and what they were made from. */
  add(before, made) {
    const items = made.map((one) => this.#item({ ...one, before, url: URL.createObjectURL(one.blob) }));
    this.#gallery.prepend(...items);
    this.#section.hidden = false;
    items[0]?.querySelector(".show").click();
  }

  #item(one) {
    const item = document.createElement("li");
    const show = document.createElement("button");
    show.type = "button";
    show.className = "show";
    show.setAttribute("aria-label", `Seed ${one.seed}: compare with the picture before`);
    const picture = new Image();
    picture.src = one.url;
    picture.alt = "";
    show.append(picture);
    show.addEventListener("click", () => this.#show(one, show));

    const said = document.createElement("p");
    said.className = "said quiet";
    const seed = document.createElement("span");
    seed.className = "seed";
    seed.textContent = `Seed ${one.seed}`;
    seed.title = one.seed;
    said.append(seed);

    const acts = document.createElement("div");
    acts.className = "acts";
    const save = document.createElement("a");
    save.className = "button plain";
    save.href = one.url;
    save.download = `${one.id}.png`;
    save.textContent = "Save";
    save.setAttribute("aria-label", `Save the picture of seed ${one.seed}`);
    acts.append(save, act("Edit", "Work on this picture", () => this.#acts.use(one)));
    acts.append(act("Seed", `Take seed ${one.seed} again`, () => this.#acts.seed(one.seed)));
    item.append(show, said, acts);
    return item;
  }

  #show(one, button) {
    this.#shown?.setAttribute("aria-pressed", "false");
    this.#shown = button;
    button.setAttribute("aria-pressed", "true");
    this.#compare.querySelector("#before").src = one.before;
    const after = this.#compare.querySelector("#after");
    after.src = one.url;
    after.alt = `After, seed ${one.seed}`;
    this.#cut();
    this.#acts.shown();
  }

  /** The result is shown right of the divider. */
  #cut() {
    const percent = this.#split.value / 10;
    this.#compare.querySelector("#after").style.clipPath = `inset(0 0 0 ${percent}%)`;
    this.#compare.querySelector("#divider").style.left = `${percent}%`;
    this.#split.setAttribute("aria-valuetext", `${Math.round(100 - percent)} percent of the result`);
  }
}

function act(text, label, run) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = text;
  button.setAttribute("aria-label", label);
  button.title = label;
  button.addEventListener("click", run);
  return button;
}
