// The words and numbers of the form, as the tools take them.

const NUMBERS = ["strength", "guidance", "numInferenceSteps", "numSamples", "width", "height"];
const TEXTS = ["prompt", "negativePrompt", "modelId", "seed"];

export class Form {
  #form;
  #trouble;
  #notes;

  constructor(form) {
    this.#form = form;
    this.#trouble = form.querySelector("#trouble");
    this.#notes = form.querySelector("#notes");
    for (const output of form.querySelectorAll("output[for]")) {
      const input = form.querySelector(`#${output.htmlFor}`);
      const show = () => (output.textContent = input.value);
      input.addEventListener("input", show);
      show();
    }
  }

  #field(name) {
    return this.#form.elements[name];
  }

  /** What is filled in; what is left out is the server's to choose. */
  read() {
    const given = {};
    for (const name of TEXTS) {
      const text = this.#field(name).value.trim();
      if (text) given[name] = text;
    }
    for (const name of NUMBERS) {
      const text = this.#field(name).value.trim();
      // What is no number goes as it is: the server says what is wrong with it.
      if (text) given[name] = Number.isFinite(Number(text)) ? Number(text) : text;
    }
    given.prompt ??= "";
    return given;
  }

  set models(ids) {
    const select = this.#field("modelId");
    // Models that were made to inpaint do it best, and most say so in their names.
    const chosen = select.value || ids.find((id) => id.includes("inpaint"));
    select.replaceChildren(...ids.map((id) => new Option(id, id)));
    if (ids.includes(chosen)) select.value = chosen;
  }

  set seed(seed) {
    this.#field("seed").value = seed;
  }

  /** Shows what is wrong, a sentence a line; lines that begin with a field's name mark it. */
  fail(text) {
    this.clear();
    this.#trouble.textContent = text;
    this.#trouble.hidden = false;
    const named = text.split("\n").map((line) => line.split(" ")[0]);
    const fields = [...TEXTS, ...NUMBERS].filter((name) => named.includes(name)).map((name) => this.#field(name));
    for (const field of fields) {
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", "trouble");
      const details = field.closest("details");
      if (details) details.open = true;
    }
    fields[0]?.focus();
  }

  /** Takes back what was said of the last run. */
  clear() {
    this.#trouble.hidden = this.#notes.hidden = true;
    for (const field of this.#form.querySelectorAll("[aria-invalid]")) {
      field.removeAttribute("aria-invalid");
      field.removeAttribute("aria-describedby");
    }
  }

  /** What the server noted of a run that went well. */
  note(lines) {
    this.#notes.textContent = lines.join("\n");
    this.#notes.hidden = lines.length === 0;
  }
}
