//! The modules of the program as the compiler sees them: which items each file defines, and which files it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Every module of the library, without those for tests.
pub(super) struct Modules {
    root: PathBuf,
    all: Vec<Module>,
}

/// One module; each has a file of its own.
#[derive(Default)]
struct Module {
    /// Below `src`.
    file: String,
    parent: usize,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    /// Those of the items that are types, traits or type aliases.
    types: BTreeSet<String>,
    /// What `use` brings into scope.
    imports: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// Every path with at least two segments.
    paths: Vec<Vec<String>>,
}

/// Re-exports that lead to each other more often than this are a cycle.
const LONGEST_CHAIN: usize = 32;

impl Modules {
    /// Reads `src/lib.rs` and the modules below it.
    pub(super) fn read(root: &Path) -> Self {
        let mut modules = Self { root: root.to_owned(), all: Vec::new() };
        modules.add("lib.rs", 0, root.to_owned());
        modules
    }

    fn add(&mut self, file: &str, parent: usize, directory: PathBuf) -> usize {
        let text = fs::read_to_string(self.root.join(file)).unwrap();
        let mut module = Module { file: file.to_owned(), parent, ..Module::default() };
        let mut names = Vec::new();
        module.scan(text.parse().unwrap(), true, &mut names);
        let index = self.all.len();
        self.all.push(module);
        for name in names {
            let own = directory.join(&name).with_extension("rs");
            let path = if own.exists() { own } else { directory.join(&name).join("mod.rs") };
            let file = path.strip_prefix(&self.root).unwrap().to_str().unwrap().to_owned();
            let child = self.add(&file, index, directory.join(&name));
            self.all[index].children.insert(name, child);
        }
        index
    }

    /// Which files each file names, the file that defines an item counting and not the ones that export it again.
    pub(super) fn edges(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (index, module) in self.all.iter().enumerate() {
            let paths = module.imports.values().chain(&module.globs).chain(&module.paths);
            let files = paths.filter_map(|path| self.definition(index, path, 0));
            edges.entry(&module.file).or_default().extend(files.filter(|file| *file != module.file));
        }
        edges
    }

    /// The files that define a type, trait or type alias of each name.
    pub(super) fn types(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut types: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for module in &self.all {
            for name in &module.types {
                types.entry(name).or_default().insert(&module.file);
            }
        }
        types
    }

    /// The file that defines the item that a path in a module names; `None` for modules and other crates.
    fn definition(&self, module: usize, path: &[String], depth: usize) -> Option<&str> {
        let (mut module, mut path) = (module, path);
        match path.first()?.as_str() {
            "crate" => (module, path) = (0, &path[1..]),
            "self" => path = &path[1..],
            "super" => {
                while path.first().is_some_and(|segment| segment == "super") {
                    (module, path) = (self.all[module].parent, &path[1..]);
                }
            }
            _ => {}
        }
        loop {
            let (name, rest) = path.split_first()?;
            let here = &self.all[module];
            if let Some(child) = here.children.get(name) {
                (module, path) = (*child, rest);
                continue;
            }
            if here.items.contains(name) {
                return Some(&here.file);
            }
            if depth == LONGEST_CHAIN {
                return None;
            }
            if let Some(import) = here.imports.get(name).filter(|import| import.as_slice() != [name.clone()])
            {
                let whole = [import, rest].concat();
                return self.definition(module, &whole, depth + 1);
            }
            return here.globs.iter().find_map(|glob| {
                let whole = [glob, path].concat();
                self.definition(module, &whole, depth + 1)
            });
        }
    }
}

impl Module {
    /// Collects what the tokens of a file say; the names of child modules go to `children`.
    fn scan(&mut self, tokens: TokenStream, is_top: bool, children: &mut Vec<String>) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Punct(punct) if punct.as_char() == '#' && is_for_tests(tokens.get(at)) => {
                    at = end_of_item(&tokens, at);
                }
                TokenTree::Group(group) => self.scan(group.stream(), false, children),
                TokenTree::Ident(_) => at = self.word(&tokens, at - 1, is_top, children),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// Reads what begins with a word; gives the place after it.
    fn word(&mut self, tokens: &[TokenTree], at: usize, is_top: bool, children: &mut Vec<String>) -> usize {
        let next = tokens.get(at + 1);
        match word(tokens.get(at)).unwrap_or_default().as_str() {
            // `use<>` in a type names what it captures.
            "use" if !next.is_some_and(|token| is_punct(token, '<')) => {
                let end = tokens[at..].iter().position(|token| is_punct(token, ';')).unwrap();
                self.import(&tokens[at + 1..at + end], &[]);
                at + end
            }
            // The path in `pub(in …)` names no item.
            "pub" if matches!(next, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis) => {
                at + 2
            }
            "mod" if is_top && tokens.get(at + 2).is_some_and(|token| is_punct(token, ';')) => {
                children.extend(word(next));
                at + 2
            }
            "struct" | "enum" | "trait" | "type" | "union" if is_top => {
                self.types.extend(word(next));
                self.items.extend(word(next));
                at + 1
            }
            "fn" | "const" | "static" if is_top => {
                self.items.extend(word(next));
                at + 1
            }
            _ => {
                let mut path = Vec::new();
                let mut end = at;
                while let Some(segment) = word(tokens.get(end)) {
                    path.push(segment);
                    end += 1;
                    if tokens
                        .get(end..end + 2)
                        .is_some_and(|pair| pair.iter().all(|token| is_punct(token, ':')))
                    {
                        end += 2;
                    } else {
                        break;
                    }
                }
                if path.len() > 1 {
                    self.paths.push(path);
                }
                end.max(at + 1)
            }
        }
    }

    /// Reads the tree of a `use` below a prefix.
    fn import(&mut self, tree: &[TokenTree], prefix: &[String]) {
        let mut path = prefix.to_vec();
        let mut name = None;
        for (at, token) in tree.iter().enumerate() {
            match token {
                TokenTree::Ident(ident) if ident == "as" => {
                    name = word(tree.get(at + 1));
                    break;
                }
                TokenTree::Ident(ident) if ident == "self" && !path.is_empty() => {}
                TokenTree::Ident(ident) => path.push(ident.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    self.globs.push(path);
                    return;
                }
                TokenTree::Group(group) => {
                    let members: Vec<TokenTree> = group.stream().into_iter().collect();
                    for member in members.split(|token| is_punct(token, ',')) {
                        self.import(member, &path);
                    }
                    return;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        if let Some(name) = name.or_else(|| path.last().cloned()) {
            self.imports.insert(name, path);
        }
    }
}

/// Whether the group after a `#` is `[cfg(test)]`.
fn is_for_tests(group: Option<&TokenTree>) -> bool {
    group.is_some_and(|group| group.to_string().replace(' ', "") == "[cfg(test)]")
}

/// The place after the item that begins here: after its braces or its semicolon.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        token => is_punct(token, ';'),
    };
    tokens[at..].iter().position(is_end).map_or(tokens.len(), |end| at + end + 1)
}

fn word(token: Option<&TokenTree>) -> Option<String> {
    match token {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    }
}

fn is_punct(token: &TokenTree, letter: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == letter)
}

/// The groups of files that name each other, directly or by way of others.
pub(super) fn cycles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|file| (*file, reach(edges, file))).collect();
    let mut groups: BTreeSet<Vec<&str>> = BTreeSet::new();
    for (file, others) in &reached {
        if others.contains(file) {
            groups.insert(others.iter().copied().filter(|other| reached[other].contains(file)).collect());
        }
    }
    groups.into_iter().collect()
}

fn reach<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = edges[from].iter().copied().collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(&edges[file]);
        }
    }
    reached
}

/// The string literals of a text of Rust, without documentation.
pub(super) fn strings(text: &str) -> Vec<String> {
    let mut strings = Vec::new();
    collect_strings(text.parse().unwrap(), &mut strings);
    strings
}

fn collect_strings(tokens: TokenStream, strings: &mut Vec<String>) {
    for token in tokens {
        match token {
            // `///` is `#[doc = "…"]`.
            TokenTree::Group(group)
                if word(group.stream().into_iter().next().as_ref()).as_deref() == Some("doc") => {}
            TokenTree::Group(group) => collect_strings(group.stream(), strings),
            TokenTree::Literal(literal) => {
                let literal = literal.to_string();
                if let Some(text) = literal.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
                    strings.push(unfold(text));
                } else if literal.starts_with(['r', 'b']) && literal.contains('"') {
                    strings.push(literal);
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// Joins the lines of a literal that end in a backslash, and breaks them at `\n`.
fn unfold(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let mut joined = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        joined.push_str(part.trim_start());
    }
    joined.replace("\\n", "\n")
}
