// Answers for screen readers.

/** Reads an answer to screen readers, by whole sentences, without marks of Markdown. */
class Speech {
  #text = "";
  #last = "";
  #inCode = false;

  push(text) {
    // The last two characters tell whether a sentence ended between two parts.
    const seam = this.#last + text;
    this.#last = seam.slice(-2);
    this.#text += text;
    let end = 0;
    for (const { index, 0: found } of seam.matchAll(/[.!?…:][)"'*_]?\s|\n|[。！？]/g)) end = index + found.length;
    end += this.#text.length - seam.length;
    if (end > 0 && end > this.#text.length - text.length) this.#say(end);
  }

  end(last) {
    this.#say(this.#text.length);
    this.#speak(last);
  }

  #say(end) {
    const said = [];
    for (const line of this.#text.slice(0, end).split("\n")) {
      if (/^\s*(```|~~~)/.test(line)) {
        this.#inCode = !this.#inCode;
        if (this.#inCode) said.push("Code block.");
      } else if (!this.#inCode) {
        said.push(line.replace(/[*_`#>|~]+/g, " "));
      }
    }
    this.#text = this.#text.slice(end);
    this.#speak(said.join(" ").trim());
  }

  #speak(text) {
    if (!text) return;
    $("speech").append(element("p", "", text));
    while ($("speech").childNodes.length > 8) $("speech").firstChild.remove();
  }
}
