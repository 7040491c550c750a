//! Results, kept as JSON, shown as tables, and written into the README.

#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host_io::files::Target;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A result of an instrument, for one shape, processor or kernel.
pub trait Row: Serialize + DeserializeOwned {
    /// The name of the instrument, of its file, and of its marks in the README.
    const NAME: &'static str;
    /// The key by which rows are distinguished and ordered.
    type Key: Ord;

    /// This row's key.
    fn key(&self) -> Self::Key;

    /// The table of these rows.
    fn table(rows: &[Self]) -> String;
}

/// The rows of an instrument's file. A row stays until it is measured again.
pub struct Store<R> {
    path: PathBuf,
    rows: Vec<R>,
}

impl<R: Row> Store<R> {
    /// An empty store that ignores the rows in the file.
    pub fn empty(folder: &Path) -> Store<R> {
        Store { path: folder.join(R::NAME).with_extension("json"), rows: Vec::new() }
    }

    /// Reads the file; without a file, the store is empty.
    ///
    /// # Errors
    /// The file cannot be read, or does not hold rows of this kind.
    pub fn open(folder: &Path) -> Result<Store<R>> {
        let Store { path, .. } = Store::<R>::empty(folder);
        let rows = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} holds something else: remove it", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Store { path, rows })
    }

    /// Puts a row into the file; replaces the row with the same key.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn put(&mut self, row: R) -> Result<()> {
        match self.rows.binary_search_by_key(&row.key(), Row::key) {
            Ok(place) => self.rows[place] = row,
            Err(place) => self.rows.insert(place, row),
        }
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let text = serde_json::to_string_pretty(&self.rows)? + "\n";
        Target::new(&self.path, &[])?.write(|file| Ok(file.write_all(text.as_bytes())?))
    }

    /// The table.
    pub fn table(&self) -> String {
        R::table(&self.rows)
    }
}

/// A column of a table: its title, and its cell in the line of a `T`.
pub type Column<T> = (&'static str, fn(&T) -> String);

/// A table in Markdown, with a line for each of `lines`.
pub fn table<T>(columns: &[Column<T>], lines: &[T]) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = row(columns.iter().map(|&(title, _)| title.into()).collect());
    text += &format!("|{}\n", "---|".repeat(columns.len()));
    for line in lines {
        text += &row(columns.iter().map(|(_, cell)| cell(line)).collect());
    }
    text
}

/// The text with the table between the marks `name`; `None` without the marks.
pub fn with_table(text: &str, name: &str, table: &str) -> Option<String> {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->\n"));
    let (before, rest) = text.split_once(&start)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{start}{table}{end}{after}"))
}

/// A number with three digits, or more if there are more before the point.
pub fn digits(x: f64) -> String {
    let places = match x.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{x:.places$}")
}

/// The cell of a number that may be missing.
pub fn cell(number: Option<f64>) -> String {
    number.map_or("–".into(), digits)
}

/// The median; 0 of no numbers.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        n if n % 2 == 1 => numbers[n / 2],
        n => (numbers[n / 2 - 1] + numbers[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Number(u32, u32);

    impl Row for Number {
        const NAME: &'static str = "numbers";
        type Key = u32;

        fn key(&self) -> u32 {
            self.0
        }

        fn table(rows: &[Number]) -> String {
            rows.iter().map(|row| format!("{}:{} ", row.0, row.1)).collect()
        }
    }

    #[test]
    fn rows_are_kept_until_they_are_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("new")).unwrap();
        for (key, value) in [(5, 1), (3, 2), (5, 7)] {
            store.put(Number(key, value)).unwrap();
        }
        let again: Store<Number> = Store::open(&folder.path().join("new")).unwrap();
        assert_eq!(again.table(), "3:2 5:7 ");

        fs::write(folder.path().join("numbers.json"), "{}").unwrap();
        let error = Store::<Number>::open(folder.path()).err().unwrap();
        assert!(error.to_string().contains("numbers.json holds something else"), "{error}");
    }

    #[test]
    fn tables_take_their_place() {
        let text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n";
        let columns: &[Column<u8>] = &[("h", u8::to_string), ("i", |n| (n + 1).to_string())];
        let new = with_table(text, "x", &table(columns, &[1])).unwrap();
        assert_eq!(new, "a\n<!-- x -->\n| h | i |\n|---|---|\n| 1 | 2 |\n<!-- /x -->\nb\n");
        assert_eq!(with_table(text, "y", ""), None);
    }

    #[test]
    fn numbers_have_three_digits() {
        for (x, text) in [(1234.5, "1234"), (98.76, "98.8"), (1.0, "1.00"), (0.126, "0.13")] {
            assert_eq!(digits(x), text);
        }
        assert_eq!((median(vec![3.0, 9.0, 1.0]), median(vec![2.0, 4.0])), (3.0, 3.0));
    }
}
