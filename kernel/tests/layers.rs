//! Layers, rooms and circles: which file of the kernel may import which.
//!
//! 1. No import runs up between the layers of the runtime: the table in `src/runtime/mod.rs`.
//! 2. No import enters a room that its own room may not depend on: "Rooms, and what they may use" in
//!    `ARCHITECTURE.md`.
//! 3. No files import each other in a circle. A module and the files in its folder count as one.
//! 4. In the runtime, `abi` alone knows the Hermit ABI.
//! 5. A room whose row says "no crate but" uses no other crate than those in its row.
//!
//! The test reads both tables, so tables and code cannot diverge. An import is a `use` item or a
//! path in the code. Imports of tests alone do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The segments of a path, from the crate's root on.
type Segments = Vec<String>;

/// The contents of one module.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    items: BTreeSet<String>,
    /// Imported names, and the paths that they stand for, as written.
    names: BTreeMap<String, Segments>,
    globs: Vec<Segments>,
    imports: Vec<Import>,
}

/// A path in a file, as written.
struct Import {
    path: Segments,
    line: usize,
}

/// The crate: its modules by their paths.
#[derive(Default)]
struct Crate(BTreeMap<Segments, Module>);

/// An import of an item in another file of the crate.
#[derive(Clone)]
struct Edge {
    from: String,
    line: usize,
    to: String,
    import: String,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: `{}` ({})", self.from, self.line, self.import, self.to)
    }
}

fn is_punct(token: Option<&TokenTree>, c: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == c)
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

/// Whether an attribute makes the next item one of tests alone.
fn is_for_tests(attribute: TokenStream) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The file that an attribute `#[path = "…"]` names.
fn path_attribute(attribute: TokenStream) -> Option<String> {
    let text = attribute.to_string();
    let file = text.strip_prefix("path")?.trim_start().strip_prefix('=')?;
    Some(file.trim().trim_matches('"').to_owned())
}

/// The position behind the item that starts at `at`.
fn end_of_item(tokens: &[TokenTree], mut at: usize) -> usize {
    let mut is_use = false;
    while let Some(token) = tokens.get(at) {
        at += 1;
        match token {
            TokenTree::Ident(ident) if ident == "use" => is_use = true,
            TokenTree::Punct(punct) if punct.as_char() == ';' => break,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_use => break,
            _ => {}
        }
    }
    at
}

impl Crate {
    /// Reads a crate from its root on; `source` returns the text of a file.
    fn read(source: &dyn Fn(&str) -> Option<String>) -> Crate {
        let mut all = Crate::default();
        all.read_file(source, Vec::new(), "lib.rs".into(), "");
        all
    }

    /// Reads one file of a module.
    ///
    /// `folder` contains the files of the module's children, and ends with a `/`.
    fn read_file(
        &mut self,
        source: &dyn Fn(&str) -> Option<String>,
        module: Segments,
        file: String,
        folder: &str,
    ) {
        let text = source(&file).unwrap_or_else(|| panic!("there is no src/{file}"));
        let tokens = text.parse::<TokenStream>().unwrap_or_else(|error| panic!("{file}: {error}"));
        self.0.insert(module.clone(), Module { file: file.clone(), ..Module::default() });
        let mut modules = Vec::new();
        self.walk(&module, &file, tokens, true, &mut modules);
        for (path, named) in modules {
            let inner: String =
                path[module.len()..path.len() - 1].iter().map(|s| s.clone() + "/").collect();
            let name = &path[path.len() - 1];
            let here = file.rsplit_once('/').map_or(String::new(), |(here, _)| format!("{here}/"));
            let (flat, nested) =
                (format!("{folder}{inner}{name}.rs"), format!("{folder}{inner}{name}/mod.rs"));
            let file = match named {
                Some(named) => format!("{here}{named}"),
                None if source(&flat).is_some() => flat,
                None => nested,
            };
            let below = format!("{folder}{inner}{name}/");
            self.read_file(source, path, file, &below);
        }
    }

    /// Notes the definitions and imports of `tokens`.
    ///
    /// Modules in other files go to `modules`.
    fn walk(
        &mut self,
        module: &Segments,
        file: &str,
        tokens: TokenStream,
        at_items: bool,
        modules: &mut Vec<(Segments, Option<String>)>,
    ) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let (mut at, mut named) = (0, None);
        while let Some(token) = tokens.get(at) {
            let (next, after) = (tokens.get(at + 1), tokens.get(at + 2));
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let skipped = if is_punct(next, '!') { 2 } else { 1 };
                    if let Some(TokenTree::Group(group)) = tokens.get(at + skipped) {
                        at += skipped + 1;
                        named = path_attribute(group.stream()).or(named);
                        if skipped == 1 && is_for_tests(group.stream()) {
                            at = end_of_item(&tokens, at);
                            named = None;
                        }
                        continue;
                    }
                }
                TokenTree::Ident(word) if word == "use" && ident(next).is_some() => {
                    let end = end_of_item(&tokens, at);
                    self.note_use(module, Vec::new(), &tokens[at + 1..end]);
                    at = end;
                    continue;
                }
                TokenTree::Ident(word) if word == "mod" && at_items && ident(next).is_some() => {
                    let name = ident(next).unwrap_or_default();
                    self.of(module).children.insert(name.clone());
                    let inner: Segments = module.iter().cloned().chain([name]).collect();
                    if let Some(TokenTree::Group(group)) = after {
                        let module = Module { file: file.to_owned(), ..Module::default() };
                        self.0.insert(inner.clone(), module);
                        self.walk(&inner, file, group.stream(), true, modules);
                    } else {
                        modules.push((inner, named.take()));
                    }
                    at += 3;
                    continue;
                }
                TokenTree::Ident(word) => {
                    let word = word.to_string();
                    const ITEMS: [&str; 8] =
                        ["fn", "struct", "enum", "const", "static", "trait", "type", "union"];
                    if at_items && ITEMS.contains(&&*word) {
                        self.of(module).items.extend(ident(next));
                    }
                    if at_items && word == "macro_rules" {
                        self.of(module).items.extend(ident(after));
                    }
                    let mut path = vec![word];
                    let mut end = at + 1;
                    while is_punct(tokens.get(end), ':') && is_punct(tokens.get(end + 1), ':') {
                        let Some(segment) = ident(tokens.get(end + 2)) else { break };
                        path.push(segment);
                        end += 3;
                    }
                    let is_colon = |at: usize| is_punct(tokens.get(at), ':');
                    let goes_on = at > 1 && is_colon(at - 1) && is_colon(at - 2);
                    if path.len() > 1 && !goes_on {
                        let line = token.span().start().line;
                        self.of(module).imports.push(Import { path, line });
                    }
                    at = end;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.walk(module, file, group.stream(), false, modules);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Notes the tree of a `use` item; `prefix` is the part that is read already.
    fn note_use(&mut self, module: &Segments, prefix: Segments, tree: &[TokenTree]) {
        let mut path = prefix;
        let mut at = 0;
        let line = |token: &TokenTree| token.span().start().line;
        while let Some(token) = tree.get(at) {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    let name = ident(tree.get(at + 1)).unwrap_or_default();
                    return self.import(module, path, Some(name), line(token));
                }
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    self.of(module).globs.push(path.clone());
                    let import = Import { path, line: line(token) };
                    return self.of(module).imports.push(import);
                }
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for part in inner.split(|token| is_punct(Some(token), ',')) {
                        self.note_use(module, path.clone(), part);
                    }
                    return;
                }
                _ => {}
            }
            at += 1;
        }
        if let Some(last) = tree.first() {
            let name = path.last().cloned();
            self.import(module, path, name, line(last));
        }
    }

    fn import(&mut self, module: &Segments, path: Segments, name: Option<String>, line: usize) {
        if let Some(name) = name {
            self.of(module).names.insert(name, path.clone());
        }
        self.of(module).imports.push(Import { path, line });
    }

    fn of(&mut self, module: &Segments) -> &mut Module {
        self.0.get_mut(module).expect("a module that is being read")
    }

    /// Resolves a path from the crate's root on; `None` for a path out of this crate.
    fn absolute(&self, module: &[String], path: &[String], depth: usize) -> Option<Segments> {
        let (mut start, mut rest) = (module.to_vec(), path);
        match rest.first()?.as_str() {
            "crate" => (start, rest) = (Vec::new(), &rest[1..]),
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|word| word == "super") {
                    start.pop()?;
                    rest = &rest[1..];
                }
            }
            first => {
                let here = self.0.get(module)?;
                if !here.children.contains(first) {
                    let stands_for = here.names.get(first).filter(|_| depth > 0)?;
                    start = self.absolute(module, stands_for, depth - 1)?;
                    rest = &rest[1..];
                }
            }
        }
        start.extend(rest.iter().cloned());
        Some(start)
    }

    /// Finds the file of an item by its absolute path, behind all re-exports.
    fn file_of(&self, path: &[String], depth: usize) -> Option<&str> {
        let mut module = Vec::new();
        for (i, segment) in path.iter().enumerate() {
            let here = self.0.get(&module)?;
            if here.children.contains(segment) {
                module.push(segment.clone());
                continue;
            }
            if here.items.contains(segment) || depth == 0 {
                return Some(&here.file);
            }
            let onward = |stands_for: &Segments, skipped: usize| {
                let mut onward = self.absolute(&module, stands_for, depth - 1)?;
                onward.extend(path[i + skipped..].iter().cloned());
                self.file_of(&onward, depth - 1)
            };
            if let Some(stands_for) = here.names.get(segment) {
                return onward(stands_for, 1);
            }
            let has = |glob: &&Segments| {
                let module = self.absolute(&module, glob, depth - 1);
                module.and_then(|module| self.0.get(&module)).is_some_and(|module| {
                    module.items.contains(segment)
                        || module.children.contains(segment)
                        || module.names.contains_key(segment)
                })
            };
            return match here.globs.iter().find(has) {
                Some(glob) => onward(glob, 0),
                None => Some(&here.file),
            };
        }
        Some(&self.0.get(&module)?.file)
    }

    /// All imports of one file from another.
    fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (module, Module { file, imports, .. }) in &self.0 {
            for Import { path, line } in imports {
                let to = self.absolute(module, path, 16).and_then(|path| self.file_of(&path, 16));
                if let Some(to) = to.filter(|to| to != file) {
                    edges.push(Edge {
                        from: file.clone(),
                        line: *line,
                        to: to.to_owned(),
                        import: path.join("::"),
                    });
                }
            }
        }
        edges
    }
}

/// The layers of the runtime, the lowest first, from the table in its module doc.
fn layers(runtime: &str) -> Vec<String> {
    let row = |line: &str| Some(line.strip_prefix("//! | [`")?.split_once("`]")?.0.to_owned());
    runtime.lines().filter_map(row).collect()
}

/// The rooms that each room of `kernel/src` may depend on; `None` for all of them.
type House = BTreeMap<String, Option<BTreeSet<String>>>;

/// The name of a room: a folder or a file of `kernel/src`.
fn room(path: &str) -> String {
    let first = path.split_once('/').map_or(path, |(first, _)| first);
    first.trim_end_matches(".rs").to_owned()
}

/// The room of a file: the longest path of the house that the file lies below.
fn room_in(house: &House, file: &str) -> String {
    let holds = |room: &&String| {
        let below = file.strip_prefix(room.as_str());
        below.is_some_and(|below| below.starts_with('/') || below == ".rs")
    };
    let longest = house.keys().filter(holds).max_by_key(|room| room.len());
    longest.cloned().unwrap_or_else(|| room(file))
}

/// Reads the table "Rooms, and what they may use" of `ARCHITECTURE.md`.
fn house(document: &str) -> House {
    let mut house = House::new();
    for (name, cell) in rows(document) {
        let allowed = (cell != "all").then(|| names_in(cell));
        house.insert(name, allowed);
    }
    house
}

/// The crates that rooms may use, for the rooms that may not use all.
fn crates_of_rooms(document: &str) -> BTreeMap<String, BTreeSet<String>> {
    let closed = |(name, cell): (String, &str)| {
        cell.split_once("no crate but").map(|(_, crates)| (name, names_in(crates)))
    };
    rows(document).filter_map(closed).collect()
}

/// The rooms of `kernel/src`, each with the cell of what it may use.
fn rows(document: &str) -> impl Iterator<Item = (String, &str)> {
    document.lines().filter(|line| line.starts_with("| [`kernel/src/")).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let name = cells[0].trim_start_matches("[`kernel/src/").split('`').next().unwrap_or("");
        (name.trim_end_matches('/').trim_end_matches(".rs").to_owned(), cells[2])
    })
}

fn names_in(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The crates that the kernel depends on, as its code names them.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut is_inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_inside = line.trim_end().ends_with("dependencies]");
        } else if let Some((name, _)) = line.split_once(['.', ' ', '=']).filter(|_| is_inside) {
            names.insert(name.replace('-', "_"));
        }
    }
    names
}

/// The texts that hold the rules: tables of rooms and layers, and the kernel's `Cargo.toml`.
struct Rules<'a> {
    document: &'a str,
    runtime: &'a str,
    manifest: &'a str,
}

/// All broken rules, one line each.
fn broken(all: &Crate, rules: &Rules) -> Vec<String> {
    let (layers, house) = (layers(rules.runtime), house(rules.document));
    let edges = all.edges();
    let mut broken = broken_crates(all, rules);
    for edge in &edges {
        let (from, to) = (room_in(&house, &edge.from), room_in(&house, &edge.to));
        let is_allowed = match house.get(&from) {
            _ if from == to || from == "lib" => true,
            Some(allowed) => allowed.as_ref().is_none_or(|allowed| allowed.contains(&to)),
            None => false,
        };
        if !is_allowed {
            broken.push(format!("{edge}: `{from}` may not depend on `{to}` (ARCHITECTURE.md)"));
        }
        let layer = |file: &str| {
            let name = room(file.strip_prefix("runtime/")?);
            (name != "mod").then(|| (layers.iter().position(|layer| *layer == name), name))
        };
        match (layer(&edge.from), layer(&edge.to)) {
            (Some((Some(from), below)), Some((Some(to), above))) if from < to => {
                broken
                    .push(format!("{edge}: `{below}` is a layer below `{above}` (runtime/mod.rs)"));
            }
            (Some((None, name)), _) | (_, Some((None, name))) => {
                broken.push(format!("{edge}: `{name}` is no layer (runtime/mod.rs)"));
            }
            _ => {}
        }
    }
    for (module, Module { file, imports, .. }) in &all.0 {
        let below_abi = module.first().is_some_and(|room| room == "runtime")
            && module.get(1).is_some_and(|layer| layer != "abi");
        for Import { path, line, .. } in imports.iter().filter(|_| below_abi) {
            if path[0].starts_with("hermit_abi") {
                let path = path.join("::");
                broken
                    .push(format!("src/{file}:{line}: `{path}`: only `abi` knows the Hermit ABI"));
            }
        }
    }
    broken.extend(circles(&edges));
    broken
}

/// Imports of crates that a room may not use.
fn broken_crates(all: &Crate, rules: &Rules) -> Vec<String> {
    let (house, crates) = (house(rules.document), crates_of_rooms(rules.document));
    let dependencies = dependencies(rules.manifest);
    let mut broken = Vec::new();
    for Module { file, imports, .. } in all.0.values() {
        let room = room_in(&house, file);
        let Some(allowed) = crates.get(&room) else { continue };
        for Import { path, line } in imports {
            if dependencies.contains(&path[0]) && !allowed.contains(&path[0]) {
                let path = path.join("::");
                broken.push(format!("src/{file}:{line}: `{path}`: no crate for `{room}`"));
            }
        }
    }
    broken
}

/// Circles of files, the shortest first, each shown by its imports.
///
/// No file is in two circles.
fn circles(edges: &[Edge]) -> Vec<String> {
    let mut circles = Vec::new();
    let mut left: Vec<&Edge> =
        edges.iter().filter(|edge| !are_family(&edge.from, &edge.to)).collect();
    while let Some(circle) = shortest_circle(&left) {
        let lines: String = circle.iter().map(|edge| format!("\n  {edge}")).collect();
        circles.push(format!("a circle of {} files:{lines}", circle.len()));
        let files: BTreeSet<&String> = circle.iter().map(|edge| &edge.from).collect();
        left.retain(|edge| !files.contains(&edge.from) && !files.contains(&edge.to));
    }
    circles
}

fn shortest_circle<'e>(edges: &[&'e Edge]) -> Option<Vec<&'e Edge>> {
    let mut after = BTreeMap::<&str, Vec<&Edge>>::new();
    for edge in edges {
        after.entry(&edge.from).or_default().push(edge);
    }
    let from = |start: &str| {
        let mut seen = BTreeSet::new();
        let mut ways: Vec<Vec<&Edge>> = after[start].iter().map(|&edge| vec![edge]).collect();
        while !ways.is_empty() {
            let mut longer = Vec::new();
            for way in ways {
                let end = &way[way.len() - 1].to;
                if end == start {
                    return Some(way);
                }
                if seen.insert(end) {
                    let next = after.get(end.as_str()).into_iter().flatten();
                    longer.extend(next.map(|&edge| [&way[..], &[edge]].concat()));
                }
            }
            ways = longer;
        }
        None
    };
    after.keys().filter_map(|start| from(start)).min_by_key(Vec::len)
}

/// Whether one of two files is the module of the other; both may name each other.
fn are_family(one: &str, other: &str) -> bool {
    let holds = |module: &str, file: &str| {
        let folder = module.strip_suffix("mod.rs").map_or_else(
            || module.strip_suffix(".rs").map(|folder| format!("{folder}/")),
            |folder| Some(folder.to_owned()),
        );
        folder.is_some_and(|folder| file.starts_with(&folder))
    };
    holds(one, other) || holds(other, one)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[test]
fn imports_keep_to_layers_and_rooms() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = |file: &str| read(&root.join("src").join(file));
    let all = Crate::read(&source);
    let runtime = source("runtime/mod.rs").unwrap();
    let document = read(&root.join("../ARCHITECTURE.md")).unwrap();
    let manifest = read(&root.join("Cargo.toml")).unwrap();
    let house = house(&document);
    assert!(all.0.len() > 150 && layers(&runtime).len() > 5 && house.len() > 5);
    assert_eq!(house["llm"], Some(["cpu", "formats"].map(String::from).into()));
    let crates = crates_of_rooms(&document);
    assert_eq!(crates["app/server/http"], BTreeSet::from(["httparse".to_owned()]));
    let dependencies = dependencies(&manifest);
    assert!(
        ["httparse", "hermit_abi", "log", "talc"].iter().all(|&name| dependencies.contains(name))
    );
    let rules = Rules { document: &document, runtime: &runtime, manifest: &manifest };
    let broken = broken(&all, &rules);
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The broken rules of these files, in a house where `llm` may use `cpu` alone.
fn broken_in(files: &[(&str, &str)]) -> Vec<String> {
    let files: BTreeMap<&str, &str> = files.iter().copied().collect();
    let source = |file: &str| files.get(file).map(|&text| text.to_owned());
    let document = "| [`kernel/src/llm/`](x) | the engine | `cpu`, nothing above it |\n\
                    | [`kernel/src/llm/pure/`](x) | rules | no room, and no crate but `libm` |\n\
                    | [`kernel/src/cpu.rs`](x) | the processor | nothing |\n\
                    | [`kernel/src/runtime/`](x) | the runtime | `cpu` |\n";
    let table = "//! | [`mem`] | memory |\n//! | [`dev`] | drivers |\n//! | [`abi`] | the ABI |\n";
    let manifest = "[dependencies]\nlibm = 1\nhermit-abi.workspace = true\n[features]\nsmall = []";
    broken(&Crate::read(&source), &Rules { document, runtime: table, manifest })
}

#[test]
fn what_breaks_a_rule_is_found() {
    let with = |lib: &str, more: &[(&str, &str)]| {
        let runtime = "pub mod abi; pub mod dev; pub mod mem;";
        let mut files = vec![
            ("lib.rs", lib),
            ("cpu.rs", "pub struct Midr;"),
            ("runtime/mod.rs", runtime),
            ("runtime/abi.rs", "use hermit_abi::EIO;"),
            ("runtime/dev.rs", "use super::mem::{Grow, *}; pub struct Uart;"),
            ("runtime/mem/mod.rs", "pub mod heap; pub use heap::Heap; pub trait Grow {}"),
            ("runtime/mem/heap.rs", "use super::Grow; use crate::cpu; pub struct Heap(cpu::Midr);"),
            ("llm/mod.rs", "mod a; mod b; pub const N: usize = 1;"),
            ("llm/a.rs", "use super::b::f;"),
            ("llm/b.rs", "pub fn f() {}"),
        ];
        files.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
        broken_in(&[&files, more].concat())
    };
    let lib = "pub mod cpu; pub mod llm; pub mod runtime;";
    assert_eq!(with(lib, &[]), [""; 0]);
    let one = |file, text| {
        let broken = with(lib, &[(file, text)]);
        assert_eq!(broken.len(), 1, "{broken:#?}");
        broken[0].clone()
    };
    // Imports up: by a `use`, a path in the code, a macro, a module's name, and behind a re-export.
    let up = "`mem` is a layer below `dev` (runtime/mod.rs)";
    for text in [
        "\nuse super::super::dev::Uart;",
        "pub struct Heap; \nfn f(of: &crate::runtime::dev::Uart) {}",
        "pub struct Heap; fn f() { \nprint!(crate::runtime::dev::Uart); }",
    ] {
        let found = one("runtime/mem/heap.rs", text);
        assert!(
            found.starts_with("src/runtime/mem/heap.rs:2: `") && found.ends_with(up),
            "{found}"
        );
    }
    let through_name = "use crate::runtime as r; fn f() { r::dev::start() }";
    assert!(one("runtime/mem/heap.rs", through_name).contains("`r::dev::start` (runtime/dev.rs)"));
    let handed_on = &[
        ("runtime/mod.rs", "pub mod abi; pub mod dev; pub mod mem; pub use dev::Uart;"),
        ("runtime/mem/heap.rs", "use crate::runtime::Uart; pub struct Heap;"),
    ];
    let broken = with(lib, handed_on);
    assert!(broken.len() == 1 && broken[0].ends_with(up), "{broken:#?}");
    // Imports of tests alone.
    let tests = "pub struct Heap; #[cfg(test)] mod tests { use crate::runtime::dev::Uart; }";
    assert_eq!(with(lib, &[("runtime/mem/heap.rs", tests)]), [""; 0]);

    let found = one("runtime/dev.rs", "use hermit_abi::EIO;");
    assert_eq!(found, "src/runtime/dev.rs:1: `hermit_abi::EIO`: only `abi` knows the Hermit ABI");
    let found = one("llm/b.rs", "pub fn f() {}\nuse crate::runtime::dev::Uart;");
    let rule = "`llm` may not depend on `runtime` (ARCHITECTURE.md)";
    assert_eq!(
        found,
        format!("src/llm/b.rs:2: `crate::runtime::dev::Uart` (runtime/dev.rs): {rule}")
    );
    let found = one("llm/b.rs", "pub fn f() -> super::a::A {}");
    assert!(found.starts_with("a circle of 2 files:\n  src/llm/a.rs:1: `super::b::f`"), "{found}");
    // A room within a room, and the crates that a room may use.
    let pure =
        |text| with(lib, &[("llm/mod.rs", "mod a; mod b; pub mod pure;"), ("llm/pure.rs", text)]);
    for text in ["use libm::exp; use core::mem;", "mod f { pub fn g() {} } use self::f::g;"] {
        assert_eq!(pure(text), [""; 0], "{text}");
    }
    let room = "`llm/pure` may not depend on `llm` (ARCHITECTURE.md)";
    assert_eq!(
        pure("use super::b::f;"),
        [format!("src/llm/pure.rs:1: `super::b::f` (llm/b.rs): {room}")]
    );
    let found = ["src/llm/pure.rs:2: `hermit_abi::read`: no crate for `llm/pure`"];
    assert_eq!(pure("\nfn f() { hermit_abi::read() }"), found);
    let into = &[
        ("llm/mod.rs", "mod a; mod b; pub mod pure;"),
        ("llm/pure.rs", "pub fn g() {}"),
        ("llm/b.rs", "use super::pure::g; pub fn f() {}"),
    ];
    let broken = with(lib, into);
    let room = "`llm` may not depend on `llm/pure` (ARCHITECTURE.md)";
    assert!(broken.len() == 1 && broken[0].ends_with(room), "{broken:#?}");
    // A room and a layer that are in no table.
    let broken =
        with("pub mod cpu; pub mod llm; pub mod net;", &[("net.rs", "use crate::cpu::Midr;")]);
    assert!(
        broken.len() == 1 && broken[0].contains("`net` may not depend on `cpu`"),
        "{broken:#?}"
    );
    let fs = &[
        ("runtime/mod.rs", "pub mod abi; pub mod dev; pub mod fs; pub mod mem;"),
        ("runtime/fs.rs", "use super::mem::Grow;"),
    ];
    let broken = with(lib, fs);
    assert!(broken.len() == 1 && broken[0].contains("`fs` is no layer"), "{broken:#?}");
}
