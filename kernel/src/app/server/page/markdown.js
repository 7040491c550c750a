"use strict";

// Markdown to DOM nodes, by createElement and text nodes alone: no text of a model becomes HTML.
//
// The dialect is what models write of CommonMark and GFM: headings, paragraphs, emphasis, code,
// lists, quotes, tables and links. All else is shown as it stands. The time is linear in the text:
// nesting, the length of URLs and the search for brackets have bounds.

/** The deepest nesting of lists and quotes. */
const MAX_DEPTH = 8;
/** The deepest nesting of emphasis. */
const MAX_EMPHASIS = 16;
/** Characters of a link's target. */
const MAX_TARGET = 2048;
/** Characters of open blocks that are rendered again at each push. */
const SHORT = 4096;

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// ---- Inline elements ----

const SPECIAL = /https?:\/\/|!\[|[\\`*_~[\]<\n]/g;
const URL_HERE = /https?:\/\/[^\s<>"'`|[\]]+/y;
const AUTOLINK = /<(https?:\/\/[^\s<>]*)>/y;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;

/** The address as the browser reads it, if it is one of http or https. */
function webAddress(source) {
  try {
    const url = new URL(source);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

function anchor(href) {
  const link = element("a");
  link.href = href;
  link.title = href;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
}

/** The target of a link, in the parentheses at `at`: its source and where it ends. */
function target(text, at) {
  let depth = 0;
  for (let i = at; i < text.length && i < at + MAX_TARGET; i++) {
    const c = text[i];
    if (c === "(") {
      // A bound on nesting bounds how often a character is looked at.
      if (++depth > 3) return null;
    } else if (c === ")") {
      if (--depth === 0) {
        const source = text.slice(at + 1, i).trim().split(/\s/, 1)[0];
        return { end: i + 1, source: source.replace(/^<|>$/g, "") };
      }
    } else if (c === "\n" || depth === 0) {
      return null;
    }
  }
  return null;
}

/** Finds the end of code spans: the next run of as many backticks. */
function spanEnds(text) {
  const runs = new Map();
  for (const { 0: run, index } of text.matchAll(/`+/g)) {
    if (!runs.has(run.length)) runs.set(run.length, { at: [], next: 0 });
    runs.get(run.length).at.push(index);
  }
  return (length, after) => {
    const run = runs.get(length);
    while (run.next < run.at.length && run.at[run.next] < after) run.next++;
    return run.at[run.next];
  };
}

/** Whether a run of `*`, `_` or `~` between two characters may open or close emphasis. */
function flanks(char, before, after) {
  const [space, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
  const [mark, markAfter] = [PUNCTUATION.test(before), PUNCTUATION.test(after)];
  const left = !spaceAfter && (!markAfter || space || mark);
  const right = !space && (!mark || spaceAfter || markAfter);
  if (char !== "_") return { opens: left, closes: right };
  return { opens: left && (!right || mark), closes: right && (!left || markAfter) };
}

/** Reads inline elements into strings, nodes and marks; a mark opens and closes elements. */
function scan(text) {
  const items = [];
  const open = { "*": [], _: [], "~": [], "[": [] };
  const mark = (source) => {
    const made = { at: items.length, source, left: source.length, opens: [], closes: 0 };
    items.push(made);
    return made;
  };
  // What was opened within an element cannot be closed outside of it.
  const dropAfter = (at) => {
    for (const stack of Object.values(open)) while (stack.length && stack.at(-1).at > at) stack.pop();
  };
  let spanEnd = null;
  let done = 0;
  SPECIAL.lastIndex = 0;
  for (let found; (found = SPECIAL.exec(text)); SPECIAL.lastIndex = done) {
    const at = found.index;
    const [special] = found;
    const char = special[0];
    if (at > done) items.push(text.slice(done, at));
    done = at + special.length;
    if (char === "h") {
      URL_HERE.lastIndex = at;
      const source = URL_HERE.exec(text)?.[0];
      const url = source?.replace(source.includes("(") ? /[.,:;!?*_~]{1,8}$/ : /[.,:;!?)*_~]{1,8}$/, "");
      const href = url && webAddress(url);
      items.push(href ? { href, source: url } : special);
      if (href) done = at + url.length;
    } else if (char === "<") {
      AUTOLINK.lastIndex = at;
      const url = AUTOLINK.exec(text)?.[1];
      const href = url && webAddress(url);
      items.push(href ? { href, source: url } : special);
      if (href) done = at + url.length + 2;
    } else if (char === "\n") {
      items.push(element("br"));
    } else if (char === "\\") {
      const next = text[done] ?? "";
      if (next === "\n") done = at + 1;
      else if (ESCAPABLE.test(next)) items.push(text[done++]);
      else items.push(char);
    } else if (char === "`") {
      while (text[done] === "`") done++;
      spanEnd ??= spanEnds(text);
      const end = spanEnd(done - at, done);
      if (end === undefined) {
        items.push(text.slice(at, done));
      } else {
        let code = text.slice(done, end).replaceAll("\n", " ");
        if (code.trim() && code[0] === " " && code.at(-1) === " ") code = code.slice(1, -1);
        items.push(element("code", "", code));
        done = end + done - at;
      }
    } else if (char === "[" || char === "!") {
      open["["].push(mark(special));
    } else if (char === "]") {
      const opener = open["["].pop();
      const found = opener && target(text, done);
      const href = found && webAddress(found.source);
      if (href) {
        opener.opens.push(anchor(href));
        opener.source = opener.source === "![" ? "Image: " : "";
        mark("").closes = 1;
        dropAfter(opener.at);
        open["["].length = 0;
        done = found.end;
      } else {
        items.push(special);
      }
    } else {
      while (text[done] === char) done++;
      const run = text.slice(at, done);
      const { opens, closes } = flanks(char, text[at - 1] ?? " ", text[done] ?? " ");
      if (run.length > 3 || (char === "~" && run.length !== 2)) {
        items.push(run);
        continue;
      }
      const made = mark(run);
      made.emphasis = true;
      for (let opener; closes && made.left && (opener = open[char].at(-1)); ) {
        const used = Math.min(opener.left, made.left, 2);
        const name = char === "~" ? "del" : used === 2 ? "strong" : "em";
        opener.opens.unshift(element(name));
        opener.left -= used;
        made.left -= used;
        made.closes++;
        dropAfter(opener.at);
        if (!opener.left) open[char].pop();
      }
      if (opens && made.left) open[char].push(made);
    }
  }
  items.push(text.slice(done));
  return items;
}

/** Appends the inline elements of a text to a node. */
function inlines(text, parent) {
  const nested = [{ node: parent, link: false }];
  const append = (child) => nested.at(-1).node.append(child);
  let links = 0;
  for (const item of scan(text)) {
    if (typeof item === "string" || item instanceof Node) {
      append(item);
    } else if (item.href) {
      // A link holds no other link.
      const link = links ? element("span") : anchor(item.href);
      link.append(item.source);
      append(link);
    } else {
      for (let i = 0; i < item.closes; i++) if (nested.pop().link) links--;
      if (item.opens[0]?.localName !== "a") {
        append(item.emphasis ? item.source.slice(0, item.left) : item.source);
      }
      for (const node of item.opens) {
        const link = node.localName === "a";
        const shown = link || nested.length <= MAX_EMPHASIS;
        if (shown) append(node);
        // Elements too deep are left out; their text is not.
        nested.push({ node: shown ? node : nested.at(-1).node, link });
        if (link) {
          links++;
          append(item.source);
        }
      }
    }
  }
}

// ---- Blocks ----

const FENCE = /^( {0,3})(`{3,}|~{3,})(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?: (.*)|)$/;
const RULE = /^ {0,3}([-*_])[ ]*(?:\1[ ]*){2,}$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;

const isBlank = (line) => line.trim() === "";
const indentOf = (line) => line.length - line.trimStart().length;

/** The opening fence of a code block; the words behind backticks hold none. */
function fenceAt(line) {
  const found = FENCE.exec(line);
  return found && !(found[2][0] === "`" && found[3].includes("`")) ? found : null;
}

/** The cells of a row: the text between bars that are not escaped. */
function cells(line) {
  const found = [""];
  const row = line.trim();
  for (let i = row[0] === "|" ? 1 : 0; i < row.length; i++) {
    if (row[i] === "\\" && row[i + 1] === "|") found[found.length - 1] += row[++i];
    else if (row[i] !== "|") found[found.length - 1] += row[i];
    else if (i + 1 < row.length) found.push("");
  }
  return found.map((cell) => cell.trim());
}

/** The alignment of each column, if the line under `lines[i]` makes that line a table's head. */
function columnsAt(lines, i) {
  if (!lines[i].includes("|") || !lines[i + 1]?.includes("-")) return null;
  const marks = cells(lines[i + 1]);
  if (!marks.every((mark) => /^:?-+:?$/.test(mark))) return null;
  if (marks.length !== cells(lines[i]).length) return null;
  return marks.map((mark) => {
    if (!mark.endsWith(":")) return "";
    return mark.startsWith(":") ? "center" : "right";
  });
}

/** Whether a line ends the paragraph before it. */
function interrupts(lines, i, depth) {
  const line = lines[i];
  if (isBlank(line) || fenceAt(line) || HEADING.test(line) || RULE.test(line)) return true;
  if (columnsAt(lines, i)) return true;
  if (depth >= MAX_DEPTH) return false;
  // A number at the start of a line within a sentence begins no list, except 1.
  const item = ITEM.exec(line);
  return QUOTE.test(line) || (item !== null && item[3] !== "" && !/^(?!1\D)\d/.test(item[2]));
}

function codeBlock(lines, i, fence, parent) {
  const [, indent, mark, words] = fence;
  const code = [];
  for (i++; i < lines.length; i++) {
    const line = lines[i].trim();
    if (line.length >= mark.length && line === mark[0].repeat(line.length)) break;
    code.push(lines[i].slice(Math.min(indent.length, indentOf(lines[i]))));
  }
  const language = words.trim().split(/\s/, 1)[0].slice(0, 32);
  const copy = element("button", "copy", "Copy");
  copy.type = "button";
  copy.setAttribute("aria-label", "Copy the code");
  const pre = element("pre", "", element("code", "", code.join("\n")));
  // A block that scrolls is reached by keyboard.
  pre.tabIndex = 0;
  pre.setAttribute("role", "group");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  parent.append(element("div", "code", element("div", "bar", element("span", "", language), copy), pre));
  return i + 1;
}

function heading(line, found, parent) {
  let text = (found[2] ?? "").trim();
  let end = text.length;
  while (end && text[end - 1] === "#") end--;
  if (end === 0 || text[end - 1] === " ") text = text.slice(0, end).trim();
  // The page has headings of levels 1 and 2.
  const node = element(`h${Math.min(found[1].length + 2, 6)}`);
  inlines(text, node);
  parent.append(node);
}

function quote(lines, i, parent, depth) {
  const inner = [];
  for (; i < lines.length && QUOTE.test(lines[i]); i++) inner.push(lines[i].replace(QUOTE, ""));
  const node = element("blockquote");
  blocks(inner, node, depth + 1);
  parent.append(node);
  return i;
}

function list(lines, i, parent, depth) {
  const [, { length: base }, first] = ITEM.exec(lines[i]);
  const number = Number.parseInt(first, 10);
  const node = element(Number.isNaN(number) ? "ul" : "ol");
  if (number >= 0 && number !== 1) node.start = number;
  for (let item; i < lines.length && (item = ITEM.exec(lines[i])); ) {
    const [all, indent, mark, gap] = item;
    const nested = indent.length >= base + 2;
    if (mark.at(-1) !== first.at(-1) || nested || RULE.test(lines[i])) break;
    const width = gap.length >= 1 && gap.length <= 4 ? all.length : indent.length + mark.length + 1;
    const inner = [lines[i].slice(width)];
    // Models indent less than CommonMark asks for.
    for (i++; i < lines.length && (isBlank(lines[i]) || indentOf(lines[i]) >= indent.length + 2); i++) {
      inner.push(lines[i].slice(Math.min(width, indentOf(lines[i]))));
    }
    const entry = element("li");
    blocks(inner, entry, depth + 1);
    node.append(entry);
  }
  parent.append(node);
  return i;
}

function table(lines, i, columns, parent) {
  const row = (line, name) => {
    const node = element("tr");
    for (const [at, text] of cells(line).slice(0, columns.length).entries()) {
      const cell = element(name, columns[at]);
      if (name === "th") cell.scope = "col";
      inlines(text, cell);
      node.append(cell);
    }
    return node;
  };
  const body = element("tbody");
  const head = element("thead", "", row(lines[i], "th"));
  for (i += 2; i < lines.length && lines[i].includes("|"); i++) body.append(row(lines[i], "td"));
  const node = element("div", "table", element("table", "", head, body));
  node.tabIndex = 0;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", "Table");
  parent.append(node);
  return i;
}

function paragraph(lines, i, parent, depth) {
  const text = [lines[i++].trim()];
  while (i < lines.length && !interrupts(lines, i, depth)) text.push(lines[i++].trim());
  const node = element("p");
  inlines(text.join("\n"), node);
  parent.append(node);
  return i;
}

/** Appends the blocks of lines to a node, one child a block; `starts` gets each one's first line. */
function blocks(lines, parent, depth, starts = []) {
  for (let i = 0; i < lines.length; ) {
    const line = lines[i];
    if (isBlank(line)) {
      i++;
      continue;
    }
    starts.push(i);
    let found;
    if ((found = fenceAt(line))) {
      i = codeBlock(lines, i, found, parent);
    } else if ((found = HEADING.exec(line))) {
      heading(line, found, parent);
      i++;
    } else if (RULE.test(line)) {
      parent.append(element("hr"));
      i++;
    } else if (depth < MAX_DEPTH && QUOTE.test(line)) {
      i = quote(lines, i, parent, depth);
    } else if (depth < MAX_DEPTH && ITEM.test(line)) {
      i = list(lines, i, parent, depth);
    } else if ((found = columnsAt(lines, i))) {
      i = table(lines, i, found, parent);
    } else {
      i = paragraph(lines, i, parent, depth);
    }
  }
}

const TABS = /^[ \t]+/;

/** Markdown that arrives part by part. Blocks that later text cannot change are kept. */
class Markdown {
  constructor(root) {
    this.root = root;
    this.kept = 0;
    this.rest = "";
    this.rendered = 0;
  }

  /** Shows more text: rendered while the open block is short, else at each eighth that it grows. */
  push(text) {
    this.rest += text;
    const length = this.rest.length;
    if (length < SHORT || (length - this.rendered) * 8 > length) {
      this.render();
      return;
    }
    let last = this.root;
    while (last.lastChild) last = last.lastChild;
    // A text of its own: to append to a long text node copies that node.
    const isFull = last.nodeType === Node.TEXT_NODE || last.localName === "br" || last.localName === "hr";
    (isFull ? last.parentNode : last).append(text);
  }

  /** Renders the blocks that are not kept. */
  render() {
    while (this.root.childNodes.length > this.kept) this.root.lastChild.remove();
    const lines = this.rest.replaceAll("\r", "").split("\n");
    const starts = [];
    blocks(
      lines.map((line) => line.replace(TABS, (space) => space.replaceAll("\t", "    "))),
      this.root,
      0,
      starts,
    );
    // A line that is not complete may yet join the block before it.
    if (starts.at(-1) === lines.length - 1) starts.pop();
    if (starts.length > 1) {
      this.kept += starts.length - 1;
      this.rest = lines.slice(starts.at(-1)).join("\n");
    }
    this.rendered = this.rest.length;
  }
}
